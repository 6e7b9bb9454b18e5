"""Commands in processes that start at once: a server imports what they import, and forks itself for each.

JAX starts its threads with its first device, which the server never asks for: so it may fork. What a fork then does is
what `python -m bert_jax` does, from its first line to the end of its interpreter.
"""

import contextlib
import ctypes
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

# What the commands import, most of it when it is needed.
MODULES = (
    "runs.pretraining",
    "runs.finetuning",
    "runs.evaluation",
    "data.prepare",
    "data.pipeline",
    "convert.pretrained",
)
MODULES += ("convert.huggingface", "convert.tf1", "cli.pretrain", "cli.finetune", "cli.weights")
# What a process and all that it starts have in their environment: its log.
MARK = "BERT_JAX_FAULT"
# Of linux/capability.h: DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER; and of linux/prctl.h.
CAPABILITY_VERSION, CAPABILITIES, PR_CAPBSET_DROP = 0x20080522, (1, 2, 3), 24


@dataclass(frozen=True)
class Start:
    """How a command is started."""

    arguments: list[str]
    folder: str
    log: str
    """The file for what it says, of both kinds."""
    largest: int | None = None
    """No file may grow beyond so many bytes."""
    bound: bool = False
    """By the permissions of files, also where root starts it."""
    environment: dict[str, str] = field(default_factory=dict)


class Process:
    """A command that runs."""

    def __init__(self, pid: int, poll, start: Start):
        self.pid, self._poll, self._log = pid, poll, Path(start.log)
        self.code: int | None = None
        """Its exit code once it has ended; -n where signal n ended it."""

    def running(self) -> bool:
        if self.code is None:
            self.code = self._poll()
        return self.code is None

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self.running()

    def said(self) -> str:
        return self._log.read_text(errors="replace").replace("\r", "\n")

    def left(self, seconds: float) -> list[str]:
        """What it started and still runs so long after its own end; ended then."""
        deadline = time.monotonic() + seconds
        while (left := self._started()) and time.monotonic() < deadline:
            time.sleep(0.05)
        lines = []
        for pid in left:
            with contextlib.suppress(OSError):
                lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
                os.kill(pid, signal.SIGKILL)
        return lines

    def _started(self) -> list[int]:
        """By the session that it began and, where they began others, by the environment that they were given."""
        found, mark = [], f"{MARK}={self._log}".encode()
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # It has just ended.
                if (
                    not folder.name.isdigit() or not (folder / "cmdline").read_bytes()
                ):  # A thread of the kernel, a zombie.
                    continue
                session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
                if session == self.pid or mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


class Forks:
    """The server, as seen by who asks it for processes; from any thread."""

    def __init__(self, **environment: str):
        self._environment = os.environ | environment
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self._lock = threading.Lock()
        self._server.stdout.readline()

    def _ask(self, **message):
        with self._lock:
            self._server.stdin.write(json.dumps(message) + "\n")
            self._server.stdin.flush()
            return json.loads(self._server.stdout.readline())

    def start(self, start: Start, alone: bool = False) -> Process:
        """`alone`: in a process that the server has no part in, slow as it starts."""
        if alone:
            command = [sys.executable, __file__, json.dumps(asdict(start))]
            process = subprocess.Popen(command, env=self._environment)
            return Process(process.pid, process.poll, start)
        pid = self._ask(start=asdict(start))
        return Process(pid, lambda: self._ask(poll=pid), start)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()


def serve() -> Start:
    """Answers until the standard input ends; returns in each fork, with what it is to run."""
    import importlib

    import matplotlib.pyplot  # noqa: F401
    import tensorboardX  # noqa: F401

    for module in MODULES:
        importlib.import_module(f"bert_jax.{module}")
    print(json.dumps("ready"), flush=True)
    while line := sys.stdin.readline():
        message = json.loads(line)
        if "poll" in message:
            pid, status = os.waitpid(message["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                return Start(**message["start"])
        print(json.dumps(answer), flush=True)
    os._exit(0)


def become(start: Start) -> None:
    """Makes of this process the one that was asked for."""
    from bert_jax.data import corpora, prepare

    # A small corpus then has several shards.
    corpora.CHUNK_BYTES, prepare.CHUNKS_A_SHARD = 1000, (2, 2)
    # A shell has what it runs in the background ignore it, and Python leaves that so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.chdir(start.folder)
    os.environ.update(start.environment, **{MARK: start.log})
    log, nothing = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if start.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (start.largest, start.largest))
    if start.bound and os.geteuid() == 0:
        _drop_capabilities()
    sys.argv = ["bert_jax", *start.arguments]
    runpy.run_module("bert_jax", run_name="__main__", alter_sys=True)


def _drop_capabilities() -> None:
    """Those by which root reads and writes whatever the permissions say, here and in what is started from here."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # Effective, permitted and inheritable ones, of the lower and the upper 32.
    assert not libc.capget(header, sets)
    for i in range(3):
        sets[i] &= ~sum(1 << number for number in CAPABILITIES)
    for number in CAPABILITIES:
        assert not libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    assert not libc.capset(header, sets)


if __name__ == "__main__":
    become(Start(**json.loads(sys.argv[1])) if sys.argv[1:] else serve())
