"""The processes of a run, each started, watched and ended by a parent of its own.

JAX names nobody when a process doesn't come, and aborts all others, or leaves them waiting, when one goes. So each
process is the child of a supervisor, without JAX. The supervisors keep a connection to that of process 0. By it they
wait for each other at the start, show that they are alive, and hear of one that isn't: then each ends its child, says
which process was lost, and returns `LOST`, for a scheduler to start all of them again.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict

from bert_jax import __version__
from bert_jax.cluster import Place

BAD_INPUT = 2
# Exit code where another process was lost (EX_TEMPFAIL): the same command goes on from the last checkpoint.
LOST = 75
# Ends that are no failure: done, or stopped by a signal, on all processes together.
GOOD = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)
# Seconds between two signs of life, and of silence until a process counts as lost.
HEARTBEAT, SILENCE = 5.0, 30.0
# Seconds for a child to end by itself where another's input was bad (its own most likely is, and it says so better),
# and for another supervisor to hang up.
GRACE = 10.0
# What a child is told in its environment: which process it is, or that it prepares the examples of all.
PLACE, PREPARE = "BERT_JAX_PLACE", "BERT_JAX_PREPARE"


# ---- In the child ---------------------------------------------------------------------------------------------------


def role() -> str | None:
    """PLACE or PREPARE in a supervisor's child, None elsewhere."""
    return next((name for name in (PLACE, PREPARE) if name in os.environ), None)


def join() -> None:
    """Connects JAX with the run's other processes, before anything else asks it for devices."""
    import jax

    place = Place(**json.loads(os.environ[PLACE]))
    address = f"{place.host}:{place.port + 1}"
    jax.distributed.initialize(address, place.processes, place.process, cluster_detection_method="deactivate")


def end_with_parent() -> None:
    """Ends this process when its parent is gone, however that went: its standard input then ends."""

    def wait():
        os.read(0, 1)
        os._exit(LOST)

    threading.Thread(target=wait, daemon=True).start()


# ---- The supervisor -------------------------------------------------------------------------------------------------


def supervise(place: Place, arguments: list[str], timeout: float) -> int:
    """Runs `bert-jax` with these arguments as one process of a run; returns its exit code.

    The children start when all processes have come, within `timeout` seconds, and process 0 has prepared what is
    missing. A first signal is passed on to the child, as SIGTERM; a second one kills it.
    """
    return asyncio.run(_supervise(place, arguments, timeout))


class End(Exception):
    """The run is over, for a reason that isn't this process's own; with its exit code."""

    def __init__(self, reason: str, code: int = LOST):
        super().__init__(reason)
        self.code = code if code == BAD_INPUT else LOST


async def _supervise(place: Place, arguments: list[str], timeout: float) -> int:
    child = _Child([sys.executable, "-m", "bert_jax", *arguments])
    link = (_Member if place.process else _Hub)(place, arguments, timeout)
    with _signals(child, asyncio.current_task()) as caught:
        try:
            async with link:
                if place.process == 0:
                    await _run(child, link, {PREPARE: "1"}, (0,))
                await link.release()
                # Only process 0 has something to say; errors go to standard error, which all have.
                quiet = place.process > 0
                code = await _run(child, link, {PLACE: json.dumps(asdict(place))}, GOOD, quiet)
                await link.finish()
                return 128 + caught[0] if caught and code else code
        except _Failed as failed:
            return failed.code
        except End as end:
            hint = "" if end.code == BAD_INPUT else "; the same command goes on from the last checkpoint"
            print(f"bert-jax: {end}{hint}", file=sys.stderr)
            return end.code
        except asyncio.CancelledError:
            return 128 + caught[0]


class _Failed(Exception):
    """The child of this process failed."""

    def __init__(self, code: int):
        self.code = code


async def _run(child: "_Child", link: "_Link", environment: dict, good: tuple[int, ...], quiet: bool = False) -> int:
    """The child's exit code, one of the `good`; raises `_Failed` at any other, `End` where another process is lost."""
    running = asyncio.create_task(child.run(environment, quiet))
    await asyncio.wait({running, link.over}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        end = link.over.exception()
        if end.code == BAD_INPUT:
            await asyncio.wait({running}, timeout=GRACE)
        if not running.done():
            child.kill() if child.running else running.cancel()
            await asyncio.wait({running})
            raise end
    code = running.result()
    if code not in good:
        await link.fail(child.reason(code), code)
        raise _Failed(code)
    return code


@contextlib.contextmanager
def _signals(child: "_Child", task: asyncio.Task) -> Iterator[list[int]]:
    """Passes signals on to the child, or ends the task where there is none yet; yields the list of those that came."""
    caught: list[int] = []

    def on(number: int) -> None:
        caught.append(number)
        if not child.running:
            task.cancel()
        elif len(caught) == 1:
            child.terminate()
        else:
            child.kill()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on, number)
    yield caught


class _Child:
    """The process that does the work. It gets signals from its parent alone, and ends when that is gone."""

    def __init__(self, command: list[str]):
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._tail = b""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def run(self, environment: dict, quiet: bool) -> int:
        """Its exit code, 128 + n where signal n ended it."""
        silence = {"TQDM_DISABLE": "1"} if quiet else {}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=os.environ | environment | silence,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL if quiet else None,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        while chunk := await self._process.stderr.read(1 << 16):
            sys.stderr.buffer.write(chunk)
            sys.stderr.flush()
            self._tail = (self._tail + chunk)[-2000:]
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)  # That which JAX tells the other processes of.

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # Its workers too.

    def reason(self, code: int) -> str:
        """How it ended, with the last line that it had to say."""
        lines = self._tail.decode(errors="replace").replace("\r", "\n").strip().splitlines()
        last = f": {lines[-1].removeprefix('bert-jax: ')}" if lines else ""
        return f"was ended by signal {code - 128}" if code > 128 else f"failed with exit code {code}{last}"


# ---- What holds the supervisors together ----------------------------------------------------------------------------


class _Peer:
    """The connection to another supervisor: a JSON object a line, an empty one as a sign of life."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.name, self._reader, self._writer = name, reader, writer
        self.ended = False
        self.listening: asyncio.Task | None = None  # The task that reads from it.
        self._life = asyncio.create_task(self._show_life())

    async def _show_life(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await self.send()

    async def send(self, **message) -> None:
        with contextlib.suppress(OSError):
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()

    async def receive(self) -> dict:
        """The next message that is more than a sign of life; raises `End` where none will come any more."""
        while True:
            try:
                line = await asyncio.wait_for(self._reader.readline(), SILENCE)
            except TimeoutError:
                raise End(f"{self.name} was lost: no sign of life for {SILENCE:.0f} seconds") from None
            except OSError:
                line = b""
            if not line:
                raise End(f"{self.name} was lost: its connection ended")
            if message := json.loads(line):
                return message

    def close(self) -> None:
        self._life.cancel()
        self._writer.close()


class _Link:
    """One supervisor's view of the others. Entered when all have come; `over` holds the `End` where one is lost."""

    def __init__(self, place: Place, arguments: list[str], timeout: float):
        self._place, self._timeout = place, timeout
        self._name = f"process {place.process} ({socket.gethostname()})"
        self._hello = {"process": place.process, "processes": place.processes, "version": __version__}
        self.over: asyncio.Future = asyncio.get_running_loop().create_future()
        self.over.add_done_callback(lambda over: over.exception())

    def _end(self, end: End) -> None:
        if not self.over.done():
            self.over.set_exception(end)


class _Hub(_Link):
    """That of process 0, where the others come together."""

    async def __aenter__(self):
        self._peers: dict[int, _Peer] = {}
        self._changed = asyncio.Event()
        try:
            self._server = await asyncio.start_server(self._take_up, port=self._place.port)
        except OSError as error:
            raise End(f"port {self._place.port} of {self._place.host}: {os.strerror(error.errno)}", BAD_INPUT) from None
        try:
            await self._all(lambda process: process in self._peers, "didn't come")
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(self, _, error, __):
        if isinstance(error, End):
            await self._tell(end=str(error), code=error.code)
        if isinstance(error, End | _Failed) and self._peers:
            # They hang up when they have read why. Closed with a sign of life unread, TCP would drop what was sent.
            await asyncio.wait({peer.listening for peer in self._peers.values()}, timeout=GRACE)
        self._server.close()
        for peer in self._peers.values():
            peer.close()

    async def release(self) -> None:
        await self._tell(start=True)

    async def fail(self, reason: str, code: int) -> None:
        await self._tell(end=f"{self._name} {reason}", code=code)

    async def finish(self) -> None:
        await self._all(lambda process: self._peers[process].ended, "didn't end")

    async def _all(self, condition, otherwise: str) -> None:
        """Waits until the condition holds for every other process."""

        def missing() -> list[str]:
            return [str(i) for i in range(1, self._place.processes) if not condition(i)]

        deadline = asyncio.get_running_loop().time() + self._timeout
        while missing() and not self.over.done():
            self._changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(left, 0))
            if left <= 0:
                which = f"process {', '.join(missing())} of {self._place.processes}"
                raise End(f"{which} {otherwise} within {self._timeout:.0f} seconds (--timeout)")
        if self.over.done():
            raise self.over.exception()

    async def _tell(self, **message) -> None:
        for peer in self._peers.values():
            await peer.send(**message)

    async def _take_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # At the end, asyncio cancels it, and would tell of that.
            await self._listen(_Peer("a process", reader, writer))

    async def _listen(self, peer: _Peer) -> None:
        """Greets another process, and listens to it from then on."""
        try:
            hello = await peer.receive()
            number = hello["process"]
            peer.name = f"process {number} ({hello['host']})"
        except (End, ValueError, KeyError, TypeError):  # Something else that found the port.
            peer.close()
            return
        if problem := self._misfit(hello):
            await peer.send(end=f"{peer.name} {problem}", code=BAD_INPUT)
            peer.close()
            return
        self._peers[number] = peer
        peer.listening = asyncio.current_task()
        self._changed.set()
        try:
            message = await peer.receive()
            if "end" in message:
                raise End(message["end"], message["code"])
            peer.ended = True
        except End as end:
            peer.ended = True
            self._end(end)
        self._changed.set()

    def _misfit(self, hello: dict) -> str | None:
        for name in ("processes", "version"):
            if hello[name] != self._hello[name]:
                return f"was started with {name} {hello[name]}, process 0 with {self._hello[name]}"
        if hello["process"] in self._peers:
            return f"is there already, as {self._peers[hello['process']].name}"
        return None


class _Member(_Link):
    """That of any other process."""

    async def __aenter__(self):
        reader, writer = await self._connect()
        self._hub = _Peer(f"process 0 ({self._place.host})", reader, writer)
        try:
            await self._hub.send(host=socket.gethostname(), **self._hello)
            message = await self._hub.receive()
            if "end" in message:
                raise End(message["end"], message["code"])
        except BaseException:
            self._hub.close()
            raise
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_):
        self._listening.cancel()
        self._hub.close()

    async def release(self) -> None:
        """Process 0 did."""

    async def fail(self, reason: str, code: int) -> None:
        await self._hub.send(end=f"{self._name} {reason}", code=code)
        await asyncio.wait({self._listening}, timeout=GRACE)

    async def finish(self) -> None:
        await self._hub.send(ended=True)
        await asyncio.wait({self._listening}, timeout=self._timeout)  # Process 0 hangs up when all have ended.

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            try:
                return await asyncio.wait_for(asyncio.open_connection(self._place.host, self._place.port), 10)
            except (OSError, TimeoutError):
                if asyncio.get_running_loop().time() > deadline:
                    address = f"{self._place.host}:{self._place.port}"
                    raise End(
                        f"process 0 didn't answer at {address} within {self._timeout:.0f} seconds (--timeout)"
                    ) from None
                await asyncio.sleep(1)

    async def _listen(self) -> None:
        try:
            message = await self._hub.receive()
            self._end(End(message["end"], message["code"]))
        except End as end:
            self._end(end)
