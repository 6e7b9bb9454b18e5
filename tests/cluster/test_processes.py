"""Several processes of one run: how they find each other, train as one, and what happens when one goes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import with_devices
from workdirs import assert_same_state, command, rows, saved_state, write_config

from bert_jax.cluster import supervisor
from bert_jax.config import InputError
from bert_jax.runs.pretraining import pretrain

ROOT = Path(__file__).parents[2]

# ---- Supervisors, over a command that does nothing ------------------------------------------------------------------


def free_port() -> int:
    """A port that is free, and the next one with it, most likely."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return min(probe.getsockname()[1], 65_000)


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_of_jaxs_that_is_in_use_is_named(host):
    """JAX would end in a segmentation fault."""
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}, the one after it, is in use on this machine; give another"):
            supervisor._check_free(host, port)
    supervisor._check_free(host, port)


def supervisors(
    workdir: Path, *places: tuple[int, int], arguments=("--version",), timeout: float = 20, python=sys.executable
):
    """Starts a supervisor for each (process, processes), whose child `python` runs."""
    code = "import pathlib, sys; from bert_jax.cluster import detection, supervisor; a = sys.argv; "
    code += "place = detection.Place('localhost', *map(int, a[1:4])); workdir = pathlib.Path(a[5]); "
    code += f"sys.executable = {str(python)!r}; sys.exit(supervisor.supervise(place, a[6:], workdir, float(a[4])))"
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, port, str(count), str(process), str(timeout), str(workdir), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, count in places
    ]


def ends(processes) -> list[tuple[int, str]]:
    """Each one's exit code and standard error."""
    errors = [process.communicate(timeout=240)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def test_the_process_that_did_not_come_is_named(tmp_path):
    for code, error in ends(supervisors(tmp_path, (0, 4), (2, 4), timeout=5)):
        assert code == 75
        assert "process 1, 3 of 4 didn't come within 5 seconds" in error and error.count("\n") == 1


def test_process_0_that_does_not_answer_is_named(tmp_path):
    ((code, error),) = ends(supervisors(tmp_path, (1, 2), timeout=2))
    assert code == 75 and re.search(r"process 0 didn't answer at localhost:\d+ within 2 seconds", error)


def test_processes_of_different_runs_do_not_meet(tmp_path):
    found = ends(supervisors(tmp_path, (0, 2), (1, 3), timeout=8))
    assert found[1][0] == 2 and "was started with processes 3, process 0 with 2" in found[1][1]
    assert found[0][0] == 75 and "process 1 of 2 didn't come" in found[0][1]


def test_bad_input_ends_all_with_its_message(tmp_path):
    for code, error in ends(supervisors(tmp_path / "new", (0, 2), (1, 2), arguments=("nonsense",))):
        assert code == 2 and "no command 'nonsense'" in error and "Traceback" not in error
    assert not (tmp_path / "new").exists()


def test_only_process_0_speaks(tmp_path):
    processes = supervisors(tmp_path, (0, 2), (1, 2))
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0][0] and not outputs[1][0] and not outputs[0][1] + outputs[1][1]


CHILD = f"""#!{sys.executable}
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
what = "prepares" if "BERT_JAX_PREPARE" in os.environ else "trains"
pathlib.Path(__file__).with_name(f"{{what}} {{os.getppid()}}").touch()
if sys.argv[-1] == what:
    os.read(0, 1)  # Until its supervisor has ended.
"""


def program(folder: Path, text: str) -> Path:
    """A child's interpreter, which does something else."""
    python = folder / "python"
    python.write_text(text)
    python.chmod(0o755)
    return python


def wait_for_files(files: list[Path]) -> None:
    deadline = time.monotonic() + 60
    while not all(file.exists() for file in files) and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("at", "sent", "codes"),
    [
        ("trains", (signal.SIGTERM, signal.SIGTERM), [143, 143]),
        ("trains", (signal.SIGINT, signal.SIGTERM), [130, 130]),
        ("trains", (signal.SIGTERM, signal.SIGINT), [130, 130]),
        ("prepares", (signal.SIGINT, signal.SIGINT), [130, 130]),
        ("prepares", (signal.SIGTERM, None), [143, 75]),
    ],
)
def test_signals_decide_the_exit_codes_of_all(tmp_path, at, sent, codes):
    python = program(tmp_path, CHILD)
    processes = supervisors(tmp_path / "run", (0, 2), (1, 2), arguments=(at,), python=python)
    waiting = [tmp_path / f"{at} {process.pid}" for process in processes[: 1 if at == "prepares" else 2]]
    wait_for_files(waiting)
    for process, number in zip(processes, sent, strict=True):
        if number:
            process.send_signal(number)
    assert [code for code, _ in ends(processes)] == codes


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_is_named_and_the_other_ends(tmp_path, killed):
    python = program(tmp_path, CHILD)
    processes = supervisors(tmp_path / "run", (0, 2), (1, 2), arguments=("trains",), python=python)
    wait_for_files([tmp_path / f"trains {process.pid}" for process in processes])
    processes[killed].kill()
    found = ends(processes)
    code, error = found[1 - killed]
    assert found[killed][0] == -signal.SIGKILL and code == 75
    assert f"process {killed} (" in error and "was lost: its connection ended" in error
    assert "the same command goes on from the last checkpoint" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("echo 'bert-jax: run: in use; wait' >&2; exit 75", "run: in use; wait"),
        ("kill -SEGV $$", "was ended by signal 11; the same command goes on"),
    ],
)
def test_what_passes_by_itself_ends_all_so_that_they_are_started_again(tmp_path, end, told):
    """JAX aborts or crashes a process if another one has ended."""
    python = program(tmp_path, f"#!/bin/sh\n{end}\n")
    for code, error in ends(supervisors(tmp_path / "run", (0, 2), (1, 2), python=python)):
        assert code == 75 and told in error


# ---- Two processes of four devices each -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config_file(config, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("processes") / "small.py", config)


@pytest.fixture(scope="module")
def one_process(config, examples, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one_process") / "run"
    pretrain(config, workdir, examples.folder)
    return workdir


@pytest.fixture(scope="module")
def two_processes(config_file, examples, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two_processes") / "run"
    environment = os.environ | {"PYTHON": sys.executable, "PORT": str(free_port()), "DEVICES": "4"}
    arguments = command(config_file, examples, workdir)[3:]
    subprocess.run(["bash", "launch/processes.sh", "2", *arguments], env=environment, check=True, cwd=ROOT)
    return workdir


def start(config_file, examples, workdir, *more) -> list[subprocess.Popen]:
    environment = with_devices(4)
    flags = [*more, "--distributed", "--coordinator", f"localhost:{free_port()}", "--processes", "2", "--process"]
    return [
        subprocess.Popen(
            command(config_file, examples, workdir, *flags, str(i)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def wait_for_rows(workdir: Path, count: int, processes) -> None:
    deadline = time.monotonic() + 200
    while len(rows(workdir)) < count and all(p.poll() is None for p in processes) and time.monotonic() < deadline:
        time.sleep(0.005)


def child_of(process: subprocess.Popen) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def test_two_processes_give_the_losses_of_one(one_process, two_processes):
    losses, expected = ([row["loss"] for row in rows(workdir)] for workdir in (two_processes, one_process))
    assert len(losses) == 30
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["process 0", "process 1", "its child"])
def test_a_process_that_is_killed_is_named_and_the_run_goes_on(two_processes, config_file, examples, tmp_path, victim):
    workdir = tmp_path / "run"
    processes = start(config_file, examples, workdir)
    wait_for_rows(workdir, 13, processes)
    number = 0 if victim == "process 0" else 1
    os.kill(child_of(processes[1]) if victim == "its child" else processes[number].pid, signal.SIGKILL)
    killed = time.monotonic()
    found = ends(processes)
    assert time.monotonic() - killed < 20
    code, error = found[1 - number]
    assert code == 75
    lost = "was ended by signal 9" if victim == "its child" else "was lost: its connection ended"
    assert f"process {number} (" in error and lost in error
    assert "the same command goes on from the last checkpoint" in error
    assert "Traceback" not in error
    assert [code for code, _ in ends(start(config_file, examples, workdir))] == [0, 0]
    assert_same_state(saved_state(workdir, 30), saved_state(two_processes, 30))
    assert [row["step"] for row in rows(workdir)] == list(range(1, 31))


@pytest.mark.parametrize("preempted", [[0, 1], pytest.param([1], marks=pytest.mark.long)])
def test_preempted_all_save_at_one_step_and_go_on_bit_for_bit(
    two_processes, config_file, examples, tmp_path, preempted
):
    workdir = tmp_path / "run"
    processes = start(config_file, examples, workdir, "--run.evaluate-every", "1")  # Most likely amid an evaluation.
    wait_for_rows(workdir, 13, processes)
    for i in preempted:
        processes[i].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outputs
    assert "steps and saved; the same command goes on from there" in outputs[0][0]
    stopped = max(int(folder.name) for folder in (workdir / "checkpoints").iterdir())
    assert 13 <= stopped < 30 and len(rows(workdir)) == stopped
    assert [code for code, _ in ends(start(config_file, examples, workdir))] == [0, 0]
    assert_same_state(saved_state(workdir, 30), saved_state(two_processes, 30))


RESTORE = """
import dataclasses, sys
import jax
from bert_jax.config import InputError, PretrainConfig
from bert_jax.config.files import from_dict
from bert_jax.devices import sharding
from bert_jax.training import steps
from bert_jax.training.checkpoints import Checkpoints
from bert_jax.training.optimizer import make_optimizer

source, target, damaged, port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(process), cluster_detection_method="deactivate")
checkpoints = Checkpoints(source)
config = from_dict(PretrainConfig, checkpoints.about(30)["config"])
mesh = sharding.make_mesh(dataclasses.replace(config.mesh, data=2, fsdp=-1, tensor=2))
model, optimizer = steps.make_model(config), make_optimizer(config.optimizer)
shapes = jax.eval_shape(lambda: steps.init_state(model, optimizer, 0))
shardings = sharding.state_shardings(mesh, shapes, model.logical_axes)
like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
again = Checkpoints(target)
again.save(30, checkpoints.restore(30, like), {}, {})
again.close()
try:
    Checkpoints(damaged).restore(30, like)
except InputError as error:
    print(error)
"""


def test_two_processes_restore_bit_for_bit_what_one_saved(one_process, tmp_path):
    """With the same checksums, whichever process has which parts; both name what isn't what was saved."""
    environment = with_devices(4)
    damaged = shutil.copytree(one_process / "checkpoints", tmp_path / "damaged")
    record = damaged / "30/checksums/metadata"
    checksums = json.loads(record.read_text())
    (name, values), *_ = ((n, values) for n, values in checksums["state"].items() if n.endswith("query/kernel"))
    record.write_text(record.read_text().replace(values[1], values[1][::-1]))
    arguments = [str(one_process / "checkpoints"), str(tmp_path / "checkpoints"), str(damaged), str(free_port())]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RESTORE, *arguments, str(i)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert_same_state(saved_state(tmp_path, 30), saved_state(one_process, 30))
    again = json.loads((tmp_path / "checkpoints/30/checksums/metadata").read_text())
    assert again["state"] == checksums["state"]
    what = f"{damaged}/30/state: damaged ({name} isn't what was saved); the last good checkpoint is {damaged}/20: "
    assert all(what in lines for lines in said), said
