"""SIGINT and SIGTERM end each command, wherever they find it; a second one ends it at once."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from bert_jax.cli import main as cli
from bert_jax.cluster.signals import Ending, Stopped
from bert_jax.runs import finetuning
from bert_jax.training import loop
from bert_jax.training.interrupt import Interrupt

# A command of which a test gives the body. `ready` lets the signal come.
COMMAND = """
import ctypes, gc, sys, time, types
from bert_jax import __main__
from bert_jax.cli import main as cli
from bert_jax.cluster import signals
from bert_jax.config import InputError

def ready():
    print("ready", flush=True)

def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

def run(_):
%s
    print("not ended", flush=True)

signals.AGAIN = 0.2
module = types.ModuleType("fake")
module.run = run
sys.modules["bert_jax.cli.fake"] = module
cli.COMMANDS["fake"] = "fake:run"
sys.exit(cli.main(["fake"]))
"""
BODIES = {
    "waiting": "ready(); time.sleep(20)",
    "where Python remembers a KeyboardInterrupt": "exec('ready(); time.sleep(20)', globals())",
    "where C prints it": """
        ctypes.pythonapi.PyRun_SimpleString(b"ready(); time.sleep(20)")
        time.sleep(20)""",
    "in a callback of garbage collection": """
        def callback(*_):
            gc.callbacks.clear()
            ready()
            busy(1)
        gc.callbacks.append(callback)
        gc.collect()
        time.sleep(20)""",
    "in a destructor": """
        class Value:
            def __del__(self):
                ready()
                busy(1)
        Value()
        time.sleep(20)""",
    "where all is caught": """
        try:
            ready()
            time.sleep(20)
        except BaseException:
            pass
        time.sleep(20)""",
    "where it becomes another error": """
        try:
            ready()
            time.sleep(20)
        except BaseException:
            raise InputError("not this")""",
    "in C": """
        signals.MOST = 1.0
        lock = ctypes.create_string_buffer(64)
        library = ctypes.CDLL(None)
        library.pthread_mutex_lock(lock)
        ready()
        library.pthread_mutex_lock(lock)""",
    "never done with cleaning up": """
        signals.MOST = 1.0
        try:
            ready()
            time.sleep(20)
        finally:
            time.sleep(20)""",
}
CLEANING = """
        try:
            ready()
            time.sleep(20)
        finally:
            try:
                busy(1.5)
                open("/no/such/file")
            except OSError:
                busy(0.5)
            print("clean", flush=True)"""


def started(body: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND % textwrap.indent(textwrap.dedent(body), "    ")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_signal_ends_a_command(body, number):
    process, sent = started(body), time.monotonic()
    time.sleep(0.1)
    process.send_signal(number)
    output, error = process.communicate(timeout=15)
    assert (process.returncode, output) == (128 + number, "") and time.monotonic() - sent < 5
    assert error.strip() in ("bert-jax: interrupted", "bert-jax: ended without cleaning up")
    assert ("without" in error) == ("MOST" in body)


def test_it_lets_a_command_clean_up_and_comes_twice_from_a_terminal_and_a_shell():
    process = started(CLEANING)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=15) == ("clean\n", "\nbert-jax: interrupted\n") and process.returncode == 130


def test_a_second_one_ends_it_at_once():
    process = started(BODIES["never done with cleaning up"].replace("1.0", "60.0"))
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=2)
    assert (process.returncode, output, error.count("\n")) == (143, "", 2)


# ---- Where a run is to be saved first -------------------------------------------------------------------------------


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_notes_a_signal_and_the_one_after_the_last_batch_is_not_lost(number):
    before = signal.getsignal(number)
    with Ending() as ending:
        with Interrupt() as interrupt:
            assert not interrupt.should_stop()
            send(number)
            send(number)
            assert interrupt.should_stop() and interrupt.signal == number
            with pytest.raises(Stopped):
                interrupt.check()
        with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
            send(number)
            send(number)
        assert ending.number == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sweep", [[], ["--seeds", "3"], ["--learning-rates", "1e-5", "2e-5"]])
def test_finetuning_ends_with_the_signal_that_stopped_it(monkeypatch, tmp_path, number, sweep):
    runs = []

    def finetune(*_):
        runs.append(_)
        return loop.Result(3, {}, number)

    monkeypatch.setattr(finetuning, "finetune", finetune)
    arguments = ["finetune", "--init", "none", "--workdir", str(tmp_path), *sweep]
    assert (cli.main([*arguments, "--task.train", "a.csv"]), len(runs)) == (128 + number, 1)
    assert not list(tmp_path.iterdir())
