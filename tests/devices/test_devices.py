"""The devices of a run: refused in a line where they aren't here, said where they are; and numbers of 32 bits."""

import dataclasses
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tqdm import tqdm
from workdirs import write_config

from bert_jax.devices import compiling, memory
from bert_jax.training import steps
from bert_jax.training.optimizer import make_optimizer

COMMANDS = [
    ["predict", "embed", "--model", "none", "a text"],
    ["import", "none", "{}/imported"],
    ["export", "none", "{}/exported", "--format", "hf"],
    ["evaluate", "--model", "none"],
    ["finetune", "--init", "none", "--workdir", "{}/finetuned"],
    ["pretrain", "--config", "{}/small.py", "--workdir", "{}/pretrained"],
]
ACCELERATORS = [file for file in ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd") if Path(file).exists()]
without_accelerators = pytest.mark.skipif(bool(ACCELERATORS), reason=f"{ACCELERATORS} are here")


def run(code: str, **environment) -> tuple[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_PLATFORMS", "TPU_"))}
    done = subprocess.run([sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True)
    return done.stdout, done.stderr


@without_accelerators
@pytest.mark.parametrize("platform", ["cuda", "tpu", "gpu", "nonsense"])
def test_a_platform_that_is_not_here_is_refused_in_a_line_by_every_command(config, tmp_path, platform):
    write_config(tmp_path / "small.py", config)
    commands = [[argument.format(tmp_path) for argument in command] for command in COMMANDS]
    code = f"from bert_jax.cli.main import main\nprint([main(command) for command in {commands!r}])"
    out, err = run(code, JAX_PLATFORMS=platform)
    assert out == f"{[2] * len(commands)}\n"
    lines = err.splitlines()
    assert len(lines) == len(commands) and len(set(lines)) == 1
    assert lines[0].startswith(f"bert-jax: JAX_PLATFORMS={platform}: no such device (") and "; unset it" in lines[0]
    assert [file.name for file in tmp_path.iterdir()] == ["small.py"]


@without_accelerators
def test_nothing_is_said_of_accelerators_that_nobody_asked_for():
    out, err = run("from bert_jax.devices import compiling; compiling.find_devices(); print(compiling.devices())")
    assert (out, err) == ("1 x cpu\n", "")


def test_64_bits_change_no_type_of_a_checkpoint(config):
    model = steps.make_model(dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=200)))
    optimizer = make_optimizer(config.optimizer)
    usual, asked = (types(model, optimizer, wide) for wide in (False, True))
    assert usual == asked


def test_a_backend_that_tells_no_sizes_of_programs(capsys):
    compiled = SimpleNamespace(memory_analysis=lambda: None)
    memory.compile_ahead([memory.Ahead("a step", SimpleNamespace(compile=lambda: compiled), "")])
    assert re.fullmatch(r"compiling a step\n  in \d s\n", capsys.readouterr().out)


def types(model, optimizer, wide: bool) -> list[str]:
    with jax.enable_x64(wide):
        return [str(x.dtype) for x in jax.tree.leaves(jax.eval_shape(lambda: steps.init_state(model, optimizer, 0)))]


def test_64_bits_are_turned_off_with_a_word(capsys):
    jax.config.update("jax_enable_x64", True)
    try:
        compiling.begin()
        assert not jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", False)
    assert capsys.readouterr().err.startswith("JAX_ENABLE_X64 is ignored")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_says_on_a_terminal_what_it_waits_for(terminal):
    file = io.StringIO()
    file.isatty = lambda: terminal

    def a_new_step(x):
        return x * 3 + 1

    with tqdm(total=2, file=file, mininterval=0) as bar, compiling.shown_in(bar):
        bar.set_postfix_str("loss 1.0")
        jax.jit(a_new_step).lower(np.float32(1)).compile()
        bar.update()
    assert ("compiling a_new_step" in file.getvalue()) == terminal
    assert "compiling" not in file.getvalue().split("\r")[-1] and "loss 1.0" in file.getvalue().split("\r")[-1]
    with tqdm(disable=True) as bar, compiling.shown_in(bar):
        pass
