"""A folder is one process's at a time, with the kernel's locks or without: who has it is named, the dead have none."""

import contextlib
import dataclasses
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from bert_jax.files import folders

HOLD = """
import sys, subprocess, time
from pathlib import Path
from bert_jax.files import folders
{before}
with folders.{kind}(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"])  # Which inherits what can be inherited.
    print(child.pid, flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder, kind="exclusive", before=""):
    """A process that has a folder, until it is killed; with its pid."""
    code = HOLD.format(kind=kind, before=before)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        os.kill(child, signal.SIGKILL)


def here(process) -> str:
    return f"in use by process {process.pid} on {socket.gethostname()}"


def test_whoever_has_a_folder_is_named_and_the_dead_have_none(tmp_path):
    folder = tmp_path / "a/run"
    with holder(folder) as process:
        for use in (folders.exclusive, folders.shared):
            with pytest.raises(folders.InUse, match=here(process)), use(folder):
                pass
        process.kill()
        process.wait()
        with folders.exclusive(folder):  # Though the process's own child lives.
            assert [file.name for file in folder.iterdir()] == [".lock"]
    assert not list(folder.iterdir())


def test_what_is_read_is_not_replaced(tmp_path):
    with holder(tmp_path, "shared") as process:
        with folders.shared(tmp_path), pytest.raises(folders.InUse, match="in use by process"):
            folders.exclusive(tmp_path).__enter__()
        with pytest.raises(folders.InUse, match=here(process)):
            folders.exclusive(tmp_path).__enter__()
        process.kill()
        process.wait()
        with folders.exclusive(tmp_path):
            assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_lock_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyError), folders.exclusive(tmp_path / "a/b"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    (tmp_path / ".0123456789abcdef.partial").write_text("killed")
    with folders.exclusive(tmp_path):
        assert not folders.is_taken(tmp_path)
    assert not list(tmp_path.iterdir())


def test_of_many_who_come_at_once_one_has_it(tmp_path):
    """The holders remove their file when they end, while others open it."""
    code = """
import sys, time, os
from pathlib import Path
from bert_jax.files import folders
folder, mark = Path(sys.argv[1]), Path(sys.argv[1] + ".mark")
for _ in range(300):
    try:
        with folders.exclusive(folder):
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # Fails where two are in here.
            mark.unlink()
    except folders.InUse:
        pass
"""
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")]) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4


def test_examples_that_cannot_be_written_can_be_read(examples, tmp_path, monkeypatch, capsys):
    opened = os.open

    def refuse(path, flags, *mode, **more):
        if flags & os.O_CREAT and ".lock" in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refuse)
    with folders.shared(examples.folder):
        assert "another process may replace it" in capsys.readouterr().err


# ---- Where the kernel has no locks ----------------------------------------------------------------------------------

WITHOUT_LOCKS = """
import fcntl
def flock(*_):
    raise OSError(37, "No locks available")
fcntl.flock = flock
folders.RENEW, folders.SETTLE = 0.1, 0.1
"""


@pytest.fixture
def without_locks(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    for name, seconds in {"RENEW": 0.1, "STALE": 2.0, "SETTLE": 0.1, "LOOK": 0.2}.items():
        monkeypatch.setattr(folders, name, seconds)


def test_a_sign_of_life_is_believed_and_silence_is_death(without_locks, tmp_path, monkeypatch):
    with holder(tmp_path, before=WITHOUT_LOCKS) as process:
        begin = time.monotonic()
        with pytest.raises(folders.InUse, match=here(process)), folders.exclusive(tmp_path):
            pass
        assert time.monotonic() - begin < folders.STALE
        process.kill()
        process.wait()
    with folders.exclusive(tmp_path):  # It was a process here, and there is none.
        assert time.monotonic() - begin < folders.STALE
    assert not list(tmp_path.iterdir())
    elsewhere = dataclasses.replace(folders.Holder.this(), machine="another-1", host="another")
    (tmp_path / ".lock").write_bytes(elsewhere.text())
    begin = time.monotonic()
    with folders.exclusive(tmp_path):  # It may live, until it has been silent for long enough.
        assert time.monotonic() - begin >= folders.STALE
    (tmp_path / ".lock").write_bytes(b"damaged")
    with folders.exclusive(tmp_path):
        pass


def test_two_who_come_at_once_see_who_was_the_last(without_locks, tmp_path, monkeypatch):
    other = dataclasses.replace(folders.Holder.this(), host="another", machine="another-1")
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / ".lock").write_bytes(other.text()))
    with pytest.raises(folders.InUse, match=f"process {os.getpid()} on another"):
        folders.exclusive(tmp_path).__enter__()
    assert (tmp_path / ".lock").read_bytes() == other.text()


def test_whoever_stood_still_for_too_long_ends(tmp_path):
    with holder(tmp_path, before=WITHOUT_LOCKS) as process:
        other = dataclasses.replace(folders.Holder.this(), host="another")
        os.kill(process.pid, signal.SIGSTOP)
        (tmp_path / ".lock").write_bytes(other.text())
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(20) == 75
    assert (tmp_path / ".lock").read_bytes() == other.text()
