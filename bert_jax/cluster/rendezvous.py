"""Connects the supervisors of a run: all meet at process 0, and learn when a process is lost."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import secrets
import signal
import socket
from pathlib import Path

from bert_jax import __version__
from bert_jax.cluster import secret
from bert_jax.cluster.detection import Place
from bert_jax.cluster.peer import LINE, End, Peer, Unknown, plain
from bert_jax.cluster.secret import FILE, SECRET
from bert_jax.files.errors import BAD_INPUT, LOST

# Seconds for a child to end by itself if another's input was bad (most likely its own is too, and its error says more),
# and for another supervisor to close its connection.
GRACE = 10.0
# Seconds for a connection to show that it knows the secret, and the most connections that haven't shown it yet: if more
# come, the oldest is closed. An honest one takes a millisecond.
HELLO, STRANGERS = 10.0, 256
# Seconds between two tries to reach process 0.
RETRY = 1.0
# Seconds until a shared file system shows a file on all machines.
SHARED = 90.0
HELLO_FIELDS = {"process", "processes", "version", "host"}


# ---- A process's link to the others ---------------------------------------------------------------------------------


class _Link:
    """A process's link to the others. Entering waits until all have come; `over` holds the `End` if one is lost."""

    def __init__(self, place: Place, workdir: Path, timeout: float):
        self._place, self._workdir, self._timeout = place, workdir, timeout
        self._name = f"process {place.process} ({socket.gethostname()})"
        self._hello = {"process": place.process, "processes": place.processes, "version": __version__}
        self.over: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def _end(self, end: End) -> None:
        if not self.over.done():
            self.over.set_result(end)


class Hub(_Link):
    """The link of process 0, to which all others connect."""

    async def __aenter__(self):
        self._peers: dict[int, Peer] = {}
        self._strangers: dict[asyncio.Task, None] = {}  # In the order in which they came.
        self._refused = 0
        self._changed = asyncio.Event()
        with secret.written(self._workdir) as self._secret:
            try:
                host, port = addresses(self._place.host), self._place.port
                self._server = await asyncio.start_server(self._accept, host, port, limit=LINE)
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                raise End(f"port {port} of {self._place.host}: {why}", BAD_INPUT) from None
            try:
                await self._all(lambda process: process in self._peers, "didn't come")
            except BaseException as error:
                await self.__aexit__(type(error), error, None)
                raise
        return self

    async def __aexit__(self, _, error, __):
        if isinstance(error, End):
            await self._tell(end=str(error), code=error.code)
        if isinstance(error, Exception) and self._peers:
            # The others close the connection once they have read why. If it were closed here with a sign of life
            # unread, TCP would drop what was sent.
            await asyncio.wait({peer.listening for peer in self._peers.values() if peer.listening}, timeout=GRACE)
        self._server.close()
        for stranger in self._strangers:
            stranger.cancel()
        for peer in self._peers.values():
            peer.close()

    async def release(self) -> None:
        await self._tell(start=True)

    async def fail(self, reason: str, code: int) -> None:
        await self._tell(end=plain(f"{self._name} {reason}"), code=code)

    async def finish(self, number: int) -> int:
        """Waits until all have ended; returns the signal that stopped the run, or 0. `number` stopped this process."""
        await self._all(lambda process: self._peers[process].ended is not None, "didn't end")
        numbers = {number, *(peer.ended or 0 for peer in self._peers.values())}
        # SIGINT to one process means that none shall be started again.
        stopped = signal.SIGINT if signal.SIGINT in numbers else max(numbers)
        await self._tell(stopped=int(stopped))
        return stopped

    async def _all(self, condition, failure: str) -> None:
        """Waits until the condition holds for every other process; at the timeout raises `End`, naming the failure."""

        def missing() -> list[str]:
            return [str(i) for i in range(1, self._place.processes) if not condition(i)]

        deadline = asyncio.get_running_loop().time() + self._timeout
        while missing() and not self.over.done():
            self._changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(left, 0))
            if left <= 0:
                which = f"process {', '.join(missing()[:20])} of {self._place.processes}"
                refused = f"; {self._refused} connections didn't know the run's secret" if self._refused else ""
                raise End(f"{which} {failure} within {self._timeout:.0f} seconds (--timeout){refused}")
        if self.over.done():
            raise self.over.result()

    async def _tell(self, **message) -> None:
        for peer in self._peers.values():
            await peer.send(**message)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer("a process", reader, writer)
        with contextlib.suppress(asyncio.CancelledError):  # At the end, asyncio cancels this, and would report that.
            try:
                if hello := await self._greet(peer):
                    await self._listen(peer, hello["process"])
            finally:
                if peer not in self._peers.values():
                    peer.close()

    async def _greet(self, peer: Peer) -> dict | None:
        """The first message of another process, which describes it; None if it isn't part of the run."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._strangers) >= STRANGERS:
            first = next(iter(self._strangers))
            del self._strangers[first]
            first.cancel()
        self._strangers[task] = None
        try:
            async with asyncio.timeout(HELLO):
                await peer.meet(self._secret, hub=True)
                hello = await peer.receive()
                if hello.keys() != HELLO_FIELDS:
                    raise Unknown
        except (End, Unknown, TimeoutError):
            self._refused += 1
            return None
        finally:
            self._strangers.pop(task, None)
        peer.name = plain(f"process {hello['process']} ({hello['host']})")
        if problem := self._mismatch(hello):
            await peer.send(end=plain(f"{peer.name} {problem}"), code=BAD_INPUT)
            return None
        return hello

    async def _listen(self, peer: Peer, number: int) -> None:
        self._peers[number] = peer
        peer.listening = asyncio.current_task()
        peer.live()
        self._changed.set()
        await peer.send(welcome=True)
        try:
            message = await peer.receive()
            if "end" in message:
                raise End.from_message(message)
            peer.ended = peer.signal_in(message, "ended")
        except End as end:
            peer.ended = 0
            self._end(end)
        self._changed.set()

    def _mismatch(self, hello: dict) -> str | None:
        """Why a process can't join the run; None if it can."""
        for name in ("processes", "version"):
            if hello[name] != self._hello[name]:
                return f"was started with {name} {hello[name]}, process 0 with {self._hello[name]}"
        if not 1 <= hello["process"] < self._place.processes:
            return f"isn't one of 1 to {self._place.processes - 1}"
        if hello["process"] in self._peers:
            return f"has already come, as {self._peers[hello['process']].name}"
        return None


class Member(_Link):
    """The link of any other process, which connects to process 0."""

    async def __aenter__(self):
        self._stopped = 0
        self._hub = await self._connect()
        try:
            message = await self._hub.receive()
            if "end" in message:
                raise End.from_message(message)
        except BaseException:
            self._hub.close()
            raise
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_):
        self._listening.cancel()
        self._hub.close()

    async def release(self) -> None:
        """Does nothing: process 0 releases all."""

    async def fail(self, reason: str, code: int) -> None:
        await self._hub.send(end=plain(f"{self._name} {reason}"), code=code)
        await asyncio.wait({self._listening}, timeout=GRACE)

    async def finish(self, number: int) -> int:
        """Waits until all have ended; returns the signal that stopped the run, or 0. `number` stopped this process."""
        await self._hub.send(ended=number)
        await asyncio.wait({self._listening}, timeout=self._timeout)  # Process 0 tells when all have ended.
        return self._stopped or number

    async def _connect(self) -> Peer:
        """The connection to process 0, once it has shown that it knows the secret."""
        secret.given()  # Raises for a bad secret before anything is waited for.
        clock = asyncio.get_running_loop().time
        seconds, begin, address = self._timeout, clock(), f"{self._place.host}:{self._place.port}"
        while True:
            try:
                return await asyncio.wait_for(self._try(), HELLO)
            except (OSError, TimeoutError):
                problem, code = f"process 0 didn't answer at {address}", LOST
            except Unknown:
                seconds = min(seconds, clock() - begin + SHARED)  # The file system may not show the file here yet.
                where = SECRET if secret.given() else f"{self._workdir / FILE} (--workdir must be one that all share)"
                problem, code = f"what answers at {address} didn't show that it knows the secret of {where}", BAD_INPUT
            if clock() - begin > seconds:
                raise End(f"{problem} within {seconds:.0f} seconds (--timeout)", code)
            await asyncio.sleep(RETRY)

    async def _try(self) -> Peer:
        reader, writer = await asyncio.open_connection(self._place.host, self._place.port, limit=LINE)
        hub = Peer(f"process 0 ({self._place.host})", reader, writer)
        try:
            await hub.meet(secret.known(self._workdir) or secrets.token_bytes(), hub=False)
            await hub.send(host=socket.gethostname(), **self._hello)
            try:
                message = await hub.receive()
            except End:
                raise Unknown from None
            if "end" in message:
                raise End.from_message(message)
            hub.live()
            return hub
        except BaseException:
            writer.close()
            raise

    async def _listen(self) -> None:
        try:
            message = await self._hub.receive()
            if "end" in message:
                raise End.from_message(message)
            self._stopped = self._hub.signal_in(message, "stopped")
        except End as end:
            self._end(end)


# ---- Where process 0 listens ----------------------------------------------------------------------------------------


def addresses(host: str) -> list[str] | None:
    """The addresses on which process 0 listens; the others find it under `host`.

    None, which means all addresses, for a name, which may have another address on other machines; and for an address
    that isn't this machine's own but leads to it, such as that of a service.
    """
    try:
        candidates = ["127.0.0.1", "::1"] if host == "localhost" else [str(ipaddress.ip_address(host))]
    except ValueError:
        return None
    return [address for address in candidates if _is_own(address)] or None


def _is_own(address: str) -> bool:
    """Whether this machine has the address."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return True
