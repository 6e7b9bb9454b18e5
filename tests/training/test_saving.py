"""Checkpoints that can't be written or read leave the last one, end in a line, and nobody waits; the best one."""

import asyncio
import contextlib
import gc
import resource
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_checksums import ABOUT, TOKENIZER, a_state, read

from bert_jax.config import InputError, RunConfig
from bert_jax.training.barrier import barrier
from bert_jax.training.checkpoints import Checkpoints


@contextlib.contextmanager
def small_disk(folder, size: str):
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def threads() -> set:
    """Those that a process waits for at its end."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


def assert_none_but(before: set) -> None:
    """Within seconds: some are just about to end."""
    until = time.monotonic() + 20
    while not threads() <= before and time.monotonic() < until:
        time.sleep(0.1)
    assert threads() <= before


@pytest.mark.parametrize("limit", [300, 20_000, 100_000])
def test_a_limit_on_the_size_of_files_is_named_with_the_last_checkpoint(tmp_path, capfd, limit):
    folder, state = tmp_path / "checkpoints", a_state()
    checkpoints, before = Checkpoints(folder, RunConfig(keep_last=9), writing=True), threads()
    checkpoints.save(1, state, ABOUT, TOKENIZER)
    checkpoints.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(
            InputError, match=f"{folder}: File too large; raise the limit .* the last checkpoint, of step 1$"
        ):
            checkpoints.save(2, state, ABOUT, TOKENIZER)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoints.close()
    assert Checkpoints(folder).steps == [1] and read(folder, 1)
    assert_none_but(before)
    assert "Traceback" not in capfd.readouterr().err


def test_a_folder_that_cant_be_written_is_named_and_nothing_waits_for_it(tmp_path):
    with small_disk(tmp_path / "disk", "1m"):
        folder = tmp_path / "disk/checkpoints"
        folder.mkdir()
        checkpoints, before = Checkpoints(folder, writing=True), threads()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        with pytest.raises(InputError, match="Read-only file system; make it writable, .* no checkpoint was saved yet"):
            checkpoints.save(1, a_state(), ABOUT, TOKENIZER)
            checkpoints.wait()
        assert_none_but(before)
        with pytest.raises(InputError, match=f"{folder}: Permission denied; check its permissions"):
            Checkpoints(folder, writing=True)


@pytest.mark.parametrize("keep_last", [1, 2, 9])
@pytest.mark.parametrize("keep_best", [1, 2])
def test_of_checkpoints_that_score_alike_the_earlier_is_the_best(tmp_path, keep_last, keep_best):
    checkpoints = Checkpoints(tmp_path / "checkpoints", RunConfig(keep_last=keep_last, keep_best=keep_best))
    for step, score in enumerate((0.5, 0.6, None, 0.6, 0.6, 0.1), start=1):
        checkpoints.save(step, {"params": np.ones(3, np.float32)}, {}, {})
        checkpoints.add_score(step, score)
    checkpoints.close()
    assert checkpoints.best == Checkpoints(tmp_path / "checkpoints").best == 2


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        ("Encountered error while reading array index 0", 0),
        ('RESOURCE_EXHAUSTED: Error writing "mu/0" in OCDBT database: No space left on device', 0),
        ("a bug", 1),
    ],
)
def test_of_several_arrays_that_cant_be_read_one_is_told(error, printed, caplog):
    """What asyncio logs of tasks that were dropped, by the filter that comes with checkpoints."""

    async def fail():
        raise ValueError(error)

    async def drop():
        asyncio.create_task(fail())  # noqa: RUF006
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(drop())
    gc.collect()
    assert len([record for record in caplog.records if record.name == "asyncio"]) == printed


def test_what_has_failed_waits_for_nobody():
    """Orbax's thread waits for a run's other processes also where an error is on its way: they would wait for it.

    The main thread saves where it has caught an error, as of a signal.
    """

    def fail():
        try:
            raise OSError("of its own")
        finally:
            barrier(key="end", timeout_ms=1)
            waited.append(True)

    waited = []
    with ThreadPoolExecutor() as pool, pytest.raises(OSError, match="of its own"):
        pool.submit(fail).result()
    assert not waited
    with pytest.raises(OSError, match="of its own"):
        fail()
    assert waited
