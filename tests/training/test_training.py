"""The loop: resuming bit for bit, any number of devices, what is kept, and whether it learns what there is to learn."""

import contextlib
import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import small_config, write_corpus
from workdirs import assert_same_state, command, rows, saved_state, with_run, write_config

from bert_jax.config import ExamplesConfig, InputError, MeshConfig, Phase, RunConfig, TokenizerConfig
from bert_jax.data import pipeline
from bert_jax.data.prepare import prepare
from bert_jax.devices.sharding import make_mesh
from bert_jax.models import losses
from bert_jax.objectives import HeadObjective
from bert_jax.runs.pretraining import pretrain
from bert_jax.training import loop, metrics, steps
from bert_jax.training.checkpoints import Checkpoints
from bert_jax.training.optimizer import make_optimizer, schedule
from bert_jax.training.optimizers import OPTIMIZERS
from bert_jax.training.program import Settings, batch_shapes, make_program


@pytest.fixture(scope="module")
def finished(config, examples, tmp_path_factory):
    """A run from start to end: its workdir and result."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, pretrain(config, workdir, examples.folder)


def test_a_run_leaves_what_it_says(finished, config):
    workdir, result = finished
    assert result.step == 30 and result.signal is None
    steps_logged = [row["step"] for row in rows(workdir)]
    assert steps_logged == list(range(1, 31))
    row = rows(workdir)[-1]
    for name in (
        "loss",
        "mlm_loss",
        "mlm_accuracy",
        "nsp_accuracy",
        "gradient_norm",
        "learning_rate",
        "tokens_per_second",
    ):
        assert np.isfinite(row[name]) and np.isfinite(row["held_out_mlm_loss"])
    assert [r["step"] for r in rows(workdir) if "held_out_mlm_loss" in r] == [10, 20, 30]
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))
    assert row["loss"] < rows(workdir)[0]["loss"] - 0.1


def test_a_finished_run_started_again_does_nothing_but_report(finished, config, examples):
    workdir, result = finished
    before = (workdir / "metrics.jsonl").read_text()
    again = pretrain(config, workdir, examples.folder)
    assert again.scores == pytest.approx(result.scores, rel=1e-6)
    assert (workdir / "metrics.jsonl").read_text() == before


def test_packed_rows_train_without_a_next_sentence_head(config, tmp_path):
    phase = Phase(sequence_length=64, batch_size=8, steps=30, max_predictions=10)
    config = dataclasses.replace(config, examples=ExamplesConfig("packed"), phases=(phase,))
    held_out = pretrain(with_run(config, accumulate_steps=2), tmp_path / "run").scores
    assert held_out["held_out_mlm_loss"] < np.log(200) - 0.3
    assert "held_out_nsp_accuracy" not in held_out


@pytest.fixture
def config_file(config, tmp_path):
    return write_config(tmp_path / "small.py", config)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGINT]
)
def test_stopped_anywhere_and_started_again_ends_bit_for_bit_the_same(
    finished, config_file, examples, tmp_path, number
):
    workdir = tmp_path / "killed"
    stop_at = random.randint(11, 27)
    print("stopped when the metrics had", stop_at, "rows")
    process = subprocess.Popen(
        command(config_file, examples, workdir), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    deadline = time.time() + 120
    while len(rows(workdir)) < stop_at and process.poll() is None and time.time() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 128 + number
        assert "the same command goes on from there" in output
    subprocess.run(command(config_file, examples, workdir), check=True, capture_output=True)
    assert_same_state(saved_state(workdir, 30), saved_state(finished[0], 30))
    assert [row["step"] for row in rows(workdir)] == list(range(1, 31))
    same = ("loss", "gradient_norm", "learning_rate")
    for ours, theirs in zip(rows(workdir), rows(finished[0]), strict=True):
        assert [ours[name] for name in same] == [theirs[name] for name in same]


@pytest.mark.parametrize(("checkpoint_every", "killed"), [(10, False), (10, True), (1000, False)])
def test_ended_in_an_evaluation_the_step_is_saved_and_the_evaluation_done_when_the_run_goes_on(
    finished, config, examples, tmp_path, monkeypatch, checkpoint_every, killed
):
    config = with_run(config, checkpoint_every=checkpoint_every)
    evaluations, seen = [], []
    batches = pipeline.held_out_batches

    def ending(*args, **kwargs):
        evaluations.append(args)
        for batch in batches(*args, **kwargs):
            seen.append(len(evaluations))
            if len(evaluations) == 2 and killed:
                raise RuntimeError
            if seen.count(2) == 1:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(pipeline, "held_out_batches", ending)
    if killed:
        with pytest.raises(RuntimeError):
            pretrain(config, tmp_path / "run", examples.folder)
    else:
        result = pretrain(config, tmp_path / "run", examples.folder)
        assert (result.step, result.signal, result.scores) == (20, signal.SIGTERM, {})
    with contextlib.closing(Checkpoints(tmp_path / "run/checkpoints")) as checkpoints:
        assert checkpoints.latest == 20 and checkpoints.score(20) is None
    assert rows(tmp_path / "run")[-1]["step"] == 20 and "held_out_mlm_loss" not in rows(tmp_path / "run")[-1]
    monkeypatch.setattr(pipeline, "held_out_batches", batches)
    result = pretrain(config, tmp_path / "run", examples.folder)
    assert_same_state(saved_state(tmp_path / "run", 30), saved_state(finished[0], 30))
    measured = [{k: v for k, v in row.items() if "tokens" not in k} for row in rows(tmp_path / "run")]
    assert measured == [{k: v for k, v in row.items() if "tokens" not in k} for row in rows(finished[0])]
    assert result.best == 30


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda c: dataclasses.replace(c, seed=1), "seed"),
        (lambda c: dataclasses.replace(c, optimizer=dataclasses.replace(c.optimizer, b2=0.98)), r"optimizer\.b2"),
        (lambda c: dataclasses.replace(c, masking=dataclasses.replace(c.masking, rate=0.3)), r"masking\.rate"),
        (lambda c: dataclasses.replace(c, phases=(Phase(32, 16, 30, 5),)), r"phases\.0\.batch_size was 8 .* is 16"),
        (lambda c: dataclasses.replace(c, model=dataclasses.replace(c.model, hidden_size=64)), r"model\.hidden_size"),
    ],
)
def test_another_run_is_refused_by_the_name_of_what_differs(finished, config, examples, change, name):
    with pytest.raises(InputError, match=name):
        pretrain(change(config), finished[0], examples.folder)


def test_other_examples_are_refused(finished, config, tmp_path):
    other = prepare(small_config(write_corpus(tmp_path / "other.txt", seed=9)), tmp_path / "other")
    with pytest.raises(InputError, match="the examples aren't those of the run"):
        pretrain(
            dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=200)),
            finished[0],
            other.folder,
        )


def test_last_and_best_are_kept_where_the_last_is_the_worst(config, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", RunConfig(keep_last=1, keep_best=1))
    state = {"params": np.ones(3, np.float32)}
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, 4.0)):
        checkpoints.save(step, state, {}, {})
        checkpoints.add_score(step, loss and -loss)
    checkpoints.close()
    again = Checkpoints(tmp_path / "checkpoints", RunConfig(keep_last=1, keep_best=1))
    assert again.steps == [2, 5]
    again.save(6, state, {}, {})
    again.add_score(6, -3.5)
    assert (again.steps, again.latest, again.best) == ([2, 6], 6, 2)
    again.save(7, state, {}, {})
    again.add_score(7, -0.5)
    assert (again.steps, again.best) == ([7], 7)
    again.add_score(7, float("nan"))
    assert again.score(7) == -0.5
    again.close()


def test_what_is_kept_doesnt_depend_on_where_a_run_was_stopped(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", RunConfig(checkpoint_every=3, keep_last=2))
    kept = []
    for step in (3, 6, 7, 9, 10, 11, 12):
        checkpoints.save(step, {"params": np.ones(3, np.float32)}, {}, {})
        kept.append(checkpoints.steps)
    checkpoints.close()
    assert kept == [[3], [3, 6], [6, 7], [6, 9], [9, 10], [9, 11], [9, 12]]


def test_a_full_disk_is_named_and_what_was_saved_remains(tmp_path, capfd):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("may not mount a small disk")
    try:
        checkpoints = Checkpoints(folder, RunConfig(keep_last=9), writing=True)
        with pytest.raises(InputError, match=f"{folder}: No space left on device; make room"):
            for step in range(1, 9):
                checkpoints.save(step, {"params": np.random.default_rng(step).random((100, 100))}, {}, {})
                checkpoints.wait()
        checkpoints.close()
        assert "Traceback" not in capfd.readouterr().err
        again = Checkpoints(folder, writing=True)
        assert again.steps == list(range(1, step))
        for saved in again.steps:
            params = ocp.PyTreeCheckpointer().restore(folder / str(saved) / "state")["params"]
            assert np.array_equal(params, np.random.default_rng(saved).random((100, 100)))
        again.close()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_while_it_trains_is_named_with_the_last_checkpoint(
    config, examples, tmp_path, monkeypatch
):
    write = metrics.Metrics.write

    def full(self, step, values):
        if step == 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, step, values)

    monkeypatch.setattr(metrics.Metrics, "write", full)
    message = f"{tmp_path}/run: No space left on device; make room .* the last checkpoint, of step 10$"
    with pytest.raises(InputError, match=message):
        pretrain(config, tmp_path / "run", examples.folder)


def test_a_checkpoint_of_another_shape_names_the_array(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"params": {"a": np.ones(3, np.float32)}}, {}, {})
    checkpoints.wait()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for like, message in (
        (jax.ShapeDtypeStruct((4,), np.float32, sharding=sharding), r"params/a is float32\[3\], expected float32\[4\]"),
        (jax.ShapeDtypeStruct((3,), np.float16, sharding=sharding), r"params/a is float32\[3\], expected float16\[3\]"),
    ):
        with pytest.raises(InputError, match=message):
            checkpoints.restore(1, {"params": {"a": like}})
    checkpoints.close()


@pytest.mark.parametrize("part", ["state/d", "state/_METADATA", "about/metadata"])
def test_a_damaged_checkpoint_is_named(finished, config, examples, tmp_path, part):
    shutil.copytree(finished[0], tmp_path / "run")
    checkpoint = tmp_path / "run/checkpoints/30"
    path = checkpoint / part
    for file in path.iterdir() if path.is_dir() else [path]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="damaged") as error:
        pretrain(config, tmp_path / "run", examples.folder)
    assert str(checkpoint) in str(error.value) and "\n" not in str(error.value)


def without_dropout(config, examples):
    sizes = dict(vocab_size=examples.tokenizer.vocab_size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return steps.make_model(dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes)))


def test_accumulated_parts_are_one_batch(config, examples):
    model = without_dropout(config, examples)
    optimizer = make_optimizer(config.optimizer)
    batch = next(pipeline.batches(examples, config))
    state = steps.init_state(model, optimizer, 0)
    arguments = state, batch, 0, schedule(config.optimizer, 30)
    results = [jax.jit(steps.make_train_step(HeadObjective(model), optimizer, parts))(*arguments) for parts in (1, 4)]
    for name in ("mlm_loss", "nsp_loss", "mlm_count", "gradient_norm"):
        assert float(results[0][1][name]) == pytest.approx(float(results[1][1][name]), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "bias_correction"), [*((name, True) for name in OPTIMIZERS), ("adamw", False), ("lamb", False)]
)
def test_a_step_leaves_the_types_as_they_are_so_that_it_is_compiled_once(config, name, bias_correction):
    model = steps.make_model(dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=200)))
    changed = dataclasses.replace(config.optimizer, name=name, bias_correction=bias_correction)
    optimizer = make_optimizer(changed)
    before = jax.eval_shape(lambda: steps.init_state(model, optimizer, 0))
    batch = batch_shapes(config, config.phases[0], None)
    after, _ = jax.eval_shape(
        steps.make_train_step(HeadObjective(model), optimizer), before, batch, 0, schedule(changed, 30)
    )
    types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) for state in (before, after)]
    assert types[0] == types[1]


def test_runs_of_other_rates_and_lengths_share_a_program(config):
    sizes = dataclasses.replace(config.model, vocab_size=200)
    model = HeadObjective(steps.make_model(dataclasses.replace(config, model=sizes)))
    mesh = make_mesh(config.mesh)
    one = Settings(config.optimizer, 30)
    changed = dataclasses.replace(config.optimizer, learning_rate=1.0, warmup_steps=1, decay="from_warmup")
    assert make_program(model, Settings(changed, 60), mesh) is make_program(model, one, mesh)
    changed = dataclasses.replace(config.optimizer, schedule="cosine")
    longer = dataclasses.replace(changed, learning_rate=1.0, warmup_steps=1)
    assert make_program(model, Settings(changed, 30), mesh) is make_program(model, Settings(longer, 60), mesh)
    changed = dataclasses.replace(config.optimizer, weight_decay=1.0)
    assert make_program(model, Settings(changed, 30), mesh) is not make_program(model, one, mesh)


def test_a_repeated_batch_is_learned_by_heart(config, examples):
    model = without_dropout(config, examples)
    changed = dataclasses.replace(config.optimizer, learning_rate=5e-3, warmup_steps=20)
    optimizer, rate = make_optimizer(changed), schedule(changed, 400)
    batch = next(pipeline.batches(examples, config))
    state = steps.init_state(model, optimizer, 0)
    train_step = jax.jit(steps.make_train_step(HeadObjective(model), optimizer), donate_argnums=0)
    for _ in range(400):
        state, sums = train_step(state, batch, 0, rate)
    assert float(losses.means(sums)["loss"]) < 0.05


def test_nothing_is_learned_from_a_scrambled_corpus(tmp_path):
    """Words in random order hold nothing but their frequencies: to do much better than the unigram would be a leak.

    A little better is none: of the tokens to predict a tenth stand there as they are, and a long run learns to copy.
    """
    rng = random.Random(0)
    # Chinese characters: each is one token, and no punctuation has a place of its own.
    words = [chr(0x4E00 + i) for i in range(50)]
    weights = [1 / (i + 1) for i in range(50)]
    documents = ("\n".join("".join(rng.choices(words, weights, k=13)) for _ in range(12)) for _ in range(300))
    (tmp_path / "scrambled.txt").write_text("\n\n".join(documents))
    config = small_config(
        tmp_path / "scrambled.txt",
        tokenizer=TokenizerConfig(vocab_size=100),
        phases=(Phase(sequence_length=32, batch_size=32, steps=300, max_predictions=5),),
        run=RunConfig(log_every=100, evaluate_every=300, checkpoint_every=300, workers=1),
    )
    held_out = pretrain(config, tmp_path / "run").scores
    difference = held_out["held_out_mlm_loss"] - held_out["held_out_unigram_loss"]
    assert -0.05 < difference < 0.15  # Below would be a leak; far above, nothing was learned at all.


def test_a_run_that_diverges_stops_with_a_reason(config, examples, tmp_path):
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=1e30))
    with pytest.raises(InputError, match=r"updates in a row weren't finite.*lower optimizer\.learning_rate"):
        pretrain(with_run(config, max_skipped_updates=3), tmp_path / "run", examples.folder)


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_only_rows_of_the_log_leave_out_steps_that_were_skipped(loss):
    sums = [{"mlm_loss": x, "mlm_correct": 1.0, "mlm_count": 1.0} for x in (2.0, loss, 4.0)]
    assert not np.isfinite(loop.add_up(sums)["mlm_loss"])  # Of an evaluation, where it would be another score.
    steps_ = [{**x, "skipped_updates": 1, "gradient_norm": 1.0} for x in sums]
    row = loop._row(steps_, loop._Clock(), 3, lambda step: step / 10)
    assert row["mlm_loss"] == pytest.approx(3, rel=1e-4) and row["skipped_updates"] == 1
    assert not np.isfinite(loop._row(steps_[1:2], loop._Clock(), 3, lambda step: 0.1)["mlm_loss"])


def test_weights_of_another_run_to_start_from(finished, config, examples, tmp_path):
    config = dataclasses.replace(
        config, phases=(Phase(32, 8, 6, 5),), optimizer=dataclasses.replace(config.optimizer, learning_rate=0.0)
    )
    result = pretrain(config, tmp_path / "continued", examples.folder, init=finished[0])
    assert result.scores["held_out_mlm_loss"] == pytest.approx(finished[1].scores["held_out_mlm_loss"], rel=1e-6)


def test_batches_that_the_mesh_cannot_share(config, examples, tmp_path):
    config = with_run(config, accumulate_steps=4)
    config = dataclasses.replace(config, mesh=MeshConfig(data=2))
    with pytest.raises(InputError, match="mesh: 2 x 1 x 1 isn't the number of devices, 1"):
        pretrain(config, tmp_path / "run", examples.folder)
    assert not (tmp_path / "run").exists()


def test_a_trace_is_written(config, examples, tmp_path):
    config = dataclasses.replace(config, phases=(Phase(32, 8, 12, 5),))
    pretrain(config, tmp_path / "run", examples.folder, profile=True)
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb"))


def test_metrics_of_lost_steps_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": s}) + "\n" for s in (10, 20, 30)) + '{"step": 4')
    metrics.Metrics(tmp_path, 20).close()
    assert [row["step"] for row in metrics.read(file)] == [10, 20]
