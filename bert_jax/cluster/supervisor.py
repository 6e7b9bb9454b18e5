"""The processes of a run, each started, watched and ended by a parent of its own.

If a process doesn't come, JAX doesn't say which; if one ends, JAX aborts all others or leaves them waiting. So each
process is the child of a supervisor, which doesn't use JAX. The supervisors are connected to that of process 0. So they
wait for each other at the start, show that they are alive, and learn when a process is lost. Then each ends its child,
says which process was lost, and returns `LOST`, so that a scheduler starts all of them again.
"""

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bert_jax.cluster.detection import Place
from bert_jax.cluster.peer import End
from bert_jax.cluster.rendezvous import GRACE, Hub, Member, addresses
from bert_jax.cluster.signals import Repeats
from bert_jax.config import InputError
from bert_jax.files.errors import BAD_INPUT, LOST
from bert_jax.files.printable import say

# Exit codes that are no failure: done, or stopped by a signal, together with all other processes.
GOOD = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)
GOES_ON = "; the same command goes on from the last checkpoint"
# Variables in a child's environment: which process it is, or that it prepares the examples for all.
PLACE, PREPARE = "BERT_JAX_PLACE", "BERT_JAX_PREPARE"


# ---- In the child ---------------------------------------------------------------------------------------------------


def role() -> str | None:
    """PLACE or PREPARE in a supervisor's child, None in other processes."""
    return next((name for name in (PLACE, PREPARE) if name in os.environ), None)


def join() -> None:
    """Connects JAX with the run's other processes; call it before anything asks JAX for devices."""
    import jax

    place = Place(**json.loads(os.environ[PLACE]))
    own_addresses = addresses(place.host) if place.process == 0 else None
    if place.process == 0:
        _check_free((own_addresses or [""])[0], place.port + 1)
    jax.distributed.initialize(
        _with_port(place.host, place.port + 1),
        place.processes,
        place.process,
        cluster_detection_method="deactivate",
        coordinator_bind_address=_with_port(own_addresses[0], place.port + 1) if own_addresses else None,
    )


def _check_free(host: str, port: int) -> None:
    """Raises `InputError` if another program uses JAX's port: JAX itself would crash."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what = f"port {port}, the one after it, is in use on this machine"
                raise InputError(f"--coordinator: {what}; give another pair of ports") from None


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def end_with_parent() -> None:
    """Ends this process when its parent has ended, however it ended: standard input then ends."""

    def wait():
        os.read(0, 1)
        os._exit(LOST)

    threading.Thread(target=wait, daemon=True).start()


# ---- The supervisor -------------------------------------------------------------------------------------------------


def supervise(place: Place, arguments: list[str], workdir: Path, timeout: float) -> int:
    """Runs `bert-jax` with these arguments as one process of a run; returns its exit code.

    The children start when all processes have come, within `timeout` seconds, and process 0 has prepared missing
    examples. A first signal is passed on to the child, as SIGTERM; a second one kills it.
    """
    return asyncio.run(_supervise(place, arguments, workdir, timeout))


async def _supervise(place: Place, arguments: list[str], workdir: Path, timeout: float) -> int:
    child = _Child([sys.executable, "-m", "bert_jax", *arguments])
    link = (Member if place.process else Hub)(place, workdir, timeout)
    task = asyncio.current_task()
    assert task is not None
    with _signals(child, task) as signals:
        try:
            async with link:
                if place.process == 0:
                    # On the CPU: it must take no accelerator from the process that trains, whatever the config imports.
                    await _run(child, link, {PREPARE: "1", "JAX_PLATFORMS": "cpu"}, (0,))
                await link.release()
                # Only process 0 prints results; errors go to standard error in all processes.
                quiet = place.process > 0
                code = await _run(child, link, {PLACE: json.dumps(asdict(place))}, GOOD, quiet)
                number = signals[0] if signals and code else max(code - 128, 0)
                stopped = await link.finish(number)
                return 128 + stopped if code else 0
        except _Failed as failed:
            if failed.code <= 128:
                return failed.code
            # A signal ended the child: the second one that came, kills it; the system does, where memory is short; and
            # JAX aborts or crashes it if another process ended earlier, and it learned that sooner than this link.
            if signals:
                return 128 + signals[0]
            child.say(f"{failed}{GOES_ON}")
            return LOST
        except End as end:
            hint = "" if end.code == BAD_INPUT else GOES_ON
            child.say(f"{end}{hint}")
            # This process was stopped by a signal; another one was too, and ended earlier.
            return 128 + signals[0] if signals and end.code == LOST else end.code
        except asyncio.CancelledError:
            return 128 + signals[0]


class _Failed(Exception):
    """The child of this process failed."""

    def __init__(self, reason: str, code: int):
        super().__init__(f"this process {reason}")
        self.code = code


async def _run(
    child: "_Child", link: Hub | Member, environment: dict, good: tuple[int, ...], quiet: bool = False
) -> int:
    """The child's exit code, one of the `good`; raises `_Failed` for any other, `End` if another process is lost."""
    running = asyncio.create_task(child.run(environment, quiet))
    either: set[asyncio.Future] = {running, link.over}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        end = link.over.result()
        if end.code == BAD_INPUT:
            await asyncio.wait({running}, timeout=GRACE)
        if not running.done():
            child.kill() if child.running else running.cancel()
            await asyncio.wait({running})
            raise end
        if running.result() != BAD_INPUT:  # JAX has aborted it, as it does if another process is gone.
            raise end
    code = running.result()
    if code not in good:
        await link.fail(child.reason(code), code)
        raise _Failed(child.reason(code), code)
    return code


@contextlib.contextmanager
def _signals(child: "_Child", task: asyncio.Task) -> Iterator[list[int]]:
    """Passes signals on to the child, or cancels the task if no child runs; yields the list of signals that came."""
    signals: list[int] = []
    repeats = Repeats()

    def on(number: int) -> None:
        if repeats.is_repeat():
            return
        signals.append(number)
        if not child.running:
            task.cancel()
        elif len(signals) == 1:
            child.terminate()
        else:
            child.kill()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on, number)
    yield signals


class _Child:
    """The process that does the work. Only its parent sends it signals, and it ends when its parent has ended."""

    def __init__(self, command: list[str]):
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._tail = b""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def run(self, environment: dict, quiet: bool) -> int:
        """Starts the child and waits for it; returns its exit code, 128 + n if signal n ended it."""
        silence = {"TQDM_DISABLE": "1"} if quiet else {}
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            env=os.environ | environment | silence,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL if quiet else None,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        while chunk := await process.stderr.read(1 << 16):
            sys.stderr.buffer.write(chunk)
            sys.stderr.flush()
            self._tail = (self._tail + chunk)[-2000:]
        code = await process.wait()
        return code if code >= 0 else 128 - code

    def say(self, message: str) -> None:
        """Prints a message on a line of its own, even if the child's last line isn't finished."""
        unfinished = [""] if self._tail and not self._tail.endswith(b"\n") else []
        say(*unfinished, f"bert-jax: {message}", file=sys.stderr)

    def terminate(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)  # The signal that JAX reports to the other processes.

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # Its workers too.

    def reason(self, code: int) -> str:
        """How the child ended, with the last line that it printed."""
        lines = self._tail.decode(errors="replace").replace("\r", "\n").strip().splitlines()
        last = f": {lines[-1].removeprefix('bert-jax: ')}" if lines else ""
        return f"was ended by signal {code - 128}" if code > 128 else f"failed with exit code {code}{last}"
