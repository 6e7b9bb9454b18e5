"""Runs of several phases: each compiled before the first step, held against the memory, and resumed."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import pytest
from workdirs import assert_same_state, rows, saved_state, with_run

from bert_jax.config import InputError, MeshConfig, Phase
from bert_jax.data.prepare import prepare
from bert_jax.devices import memory
from bert_jax.devices.chips import GIB
from bert_jax.devices.sharding import make_mesh
from bert_jax.objectives import HeadObjective
from bert_jax.runs.pretraining import pretrain
from bert_jax.training import loop, steps
from bert_jax.training.program import Settings, make_program


@pytest.fixture(scope="module")
def two_phases(config, tmp_path_factory):
    """A config and its examples."""
    config = dataclasses.replace(config, phases=(Phase(32, 8, 6, 5), Phase(48, 4, 6, 5)))
    config = with_run(config, evaluate_every=3, checkpoint_every=3)
    return config, prepare(config, tmp_path_factory.mktemp("examples") / "two").folder


def test_all_is_compiled_before_the_first_step_and_a_run_resumes_in_its_second_phase(
    two_phases, tmp_path, monkeypatch, capsys
):
    config, examples = two_phases
    compiled, before = [], []

    def note(event: str, _seconds: float, fun_name: str = "", **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    def ahead(programs):
        memory.compile_ahead(programs)
        before.extend(compiled)
        compiled.clear()

    jax.monitoring.register_event_duration_secs_listener(note)
    monkeypatch.setattr(loop, "compile_ahead", ahead)
    # As the checkpoints say that were made when "none" was the default.
    kept = dataclasses.replace(config, model=dataclasses.replace(config.model, remat="none"))
    assert pretrain(kept, tmp_path / "whole", examples).step == 12
    programs = {"jit(train_step)", "jit(evaluation_step)"}
    assert programs <= set(before) and not programs & set(compiled)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("compiling")]
    tokens = ("1 of 2", "8 x 32 tokens"), ("2 of 2", "4 x 48 tokens")
    assert said == [
        f"compiling phase {phase}: {step} step of {size}"
        for phase, size in tokens
        for step in ("a training", "an evaluation")
    ]

    # Lose the last checkpoint, as by a kill: the run goes on from step 9, in the second phase.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/12")
    assert pretrain(config, tmp_path / "cut", examples).step == 12
    assert_same_state(saved_state(tmp_path / "cut", 12), saved_state(tmp_path / "whole", 12))
    assert "phase 1" not in capsys.readouterr().out
    assert pretrain(config, tmp_path / "cut", examples).step == 12
    assert "compiling" not in capsys.readouterr().out  # There is nothing left to do.


def test_a_phase_too_large_for_a_device_is_refused_before_the_first_step(two_phases, tmp_path, monkeypatch):
    config, examples = two_phases
    larger = dataclasses.replace(config.phases[1], batch_size=512)
    config = dataclasses.replace(config, phases=(config.phases[0], larger))
    monkeypatch.setattr(memory, "device_memory", lambda: 20 << 20)  # 0.02 GiB.
    figures = r"takes 0\.\d\d GiB, a device has 0\.02; make room by a smaller phases\.1\.batch_size"
    with pytest.raises(InputError, match=rf"^phase 2 of 2: a training step of 512 x 48 tokens {figures}.*remat full$"):
        pretrain(config, tmp_path / "run", examples)
    assert not rows(tmp_path / "run") and not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize("limit", [None, 3.5, 2.5])
def test_memory_is_arguments_results_and_what_lies_beside(monkeypatch, limit):
    """A GiB in, a GiB out in the place of what came in, or beside it, and one that is another's."""
    monkeypatch.setattr(memory, "device_memory", lambda: limit and int(limit * GIB))
    gib = jax.ShapeDtypeStruct((1 << 28,), jnp.float32)
    given_up = memory.Ahead("one", jax.jit(jnp.negative, donate_argnums=0).lower(gib), "", beside=GIB)
    kept = memory.Ahead("two", jax.jit(jnp.negative).lower(gib), "buy more", beside=GIB)
    memory.compile_ahead([given_up])
    if limit == 2.5:
        with pytest.raises(InputError, match=r"^two takes 3\.00 GiB, a device has 2\.50; buy more$"):
            memory.compile_ahead([kept])
    else:
        memory.compile_ahead([kept])


def test_the_refusal_of_a_compiler_or_device_is_one_line():
    """As libtpu puts it, and as the device here does."""
    needs = "the total memory required for HLO temporaries (20.37G) exceeds available HBM (15.75G)"
    why = f"Ran out of memory on HBM, {needs}"
    with pytest.raises(InputError) as error, memory.refusals("phase 2 of 2", "buy more"):
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {why}.\nLargest allocations:")
    assert str(error.value) == f"phase 2 of 2: {why}; buy more"
    with pytest.raises(InputError) as error, memory.refusals("the run", "buy more"):
        jnp.zeros((1 << 50,), jnp.int8)
    assert str(error.value) == f"the run: Out of memory allocating {1 << 50} bytes; buy more"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.refusals("", ""):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")


def test_on_a_cpu_nothing_is_computed_again_unless_asked_for(config):
    def program(**changes):
        model = dataclasses.replace(config.model, vocab_size=200, **changes)
        objective = HeadObjective(steps.make_model(dataclasses.replace(config, model=model)))
        return make_program(objective, Settings(config.optimizer, 30), make_mesh(MeshConfig()))

    assert program() is program(remat="none")
    assert program(remat="dots").objective.model.config.remat == "dots"
