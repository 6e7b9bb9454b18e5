"""What can be done to a process while it runs, to what it may use, and to the files that it finds."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from forks import Process, children, command_of

# ---- To a process ---------------------------------------------------------------------------------------------------

# Each returns the signals by which the process may then end.
Strike = Callable[[Process, random.Random], tuple[int, ...]]


def _send(number: int) -> Strike:
    def strike(process: Process, _: random.Random) -> tuple[int, ...]:
        _kill(process.pid, number)
        return (number,)

    return strike


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _ctrl_c(process: Process, _: random.Random) -> tuple[int, ...]:
    """As a terminal sends it: to all processes that the command started, too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    return (signal.SIGINT,)


def _twice(process: Process, rng: random.Random) -> tuple[int, ...]:
    first, second = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.choice([signal.SIGINT, signal.SIGTERM])
    _kill(process.pid, first)
    time.sleep(rng.uniform(0, 0.5))
    _kill(process.pid, second)
    return first, second


def _stop(process: Process, rng: random.Random) -> tuple[int, ...]:
    """As by Ctrl-Z, or a machine that is moved: it goes on later."""
    _kill(process.pid, signal.SIGSTOP)
    time.sleep(rng.uniform(0.2, 2))
    _kill(process.pid, signal.SIGCONT)
    return ()


def _kill_child(process: Process, rng: random.Random) -> tuple[int, ...]:
    """One of its own processes; itself, where it has none."""
    # Not Python's own keeper of semaphores, which would tell of each that it didn't know any more.
    if its := [child for child in children(process.pid) if "resource_tracker" not in command_of(child)]:
        _kill(rng.choice(its), signal.SIGKILL)
        return ()
    _kill(process.pid, signal.SIGKILL)
    return (signal.SIGKILL,)


RUNNING: dict[str, Strike] = {
    "SIGKILL": _send(signal.SIGKILL),
    "SIGTERM": _send(signal.SIGTERM),
    "SIGINT": _send(signal.SIGINT),
    "Ctrl-C": _ctrl_c,
    "two signals": _twice,
    "stopped": _stop,
    "child killed": _kill_child,
}

# ---- To what it may use ---------------------------------------------------------------------------------------------


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", "-t", "tmpfs", *arguments], capture_output=True).returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Callable[[], None]]:
    """A folder that is a disk of its own, with so many bytes of room left; yields what makes room."""
    aside = folder.with_name(f"{folder.name}.aside")
    folder.rename(aside)
    folder.mkdir()
    used = sum(4096 * (1 + path.lstat().st_size // 4096) for path in aside.rglob("*")) + 4096
    assert _mount("-o", f"size={1 << 30},mode=755", "tmpfs", str(folder))
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        shutil.rmtree(aside)
        assert _mount("-o", f"remount,size={used + room}", "tmpfs", str(folder))
        yield lambda: _mount("-o", f"remount,size={1 << 30}", "tmpfs", str(folder))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return _mount("-o", "size=4k", "tmpfs", folder) and not subprocess.run(["umount", folder]).returncode


def forbid(path: Path, how: str) -> Callable[[], None]:
    """Makes a file or folder "unreadable" or "unwritable" for its owner; returns what undoes it."""
    mode = path.stat().st_mode & 0o777
    path.chmod(0 if how == "unreadable" else mode & 0o555)
    return lambda: path.chmod(mode)


STARVED = ("disk full", "file too large", "unwritable", "unreadable")

# ---- To a file ------------------------------------------------------------------------------------------------------


def _flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _truncate(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(max(file.stat().st_size, 1)))


DAMAGED: dict[str, Callable[[Path, random.Random], None]] = {
    "bit flipped": _flip,
    "truncated": _truncate,
    "emptied": lambda file, _: file.write_bytes(b""),
    "deleted": lambda file, _: file.unlink(),
    "folder deleted": lambda file, _: shutil.rmtree(file.parent),
    "[] in it": lambda file, _: file.write_bytes(b"[]"),
    "noise in it": lambda file, rng: file.write_bytes(rng.randbytes(max(file.stat().st_size, 1))),
}

TOGETHER = ("two at once",)
ALL = (*RUNNING, *STARVED, *DAMAGED, *TOGETHER)
