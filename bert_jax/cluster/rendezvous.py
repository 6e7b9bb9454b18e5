"""Where the supervisors of a run meet: they know each other by a secret, and hear of one that is lost.

Process 0 writes a fresh secret into the workdir, which all processes share and nobody else can read; or the environment
has one. Whoever connects proves that it knows it, without sending it, and each line that follows carries a code made
with it: nothing is believed, nor read any further, that has none.
"""

import asyncio
import contextlib
import errno
import hmac
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from bert_jax import __version__
from bert_jax.cluster.detection import Place
from bert_jax.cluster.signals import ENDING
from bert_jax.config import InputError
from bert_jax.files import storage
from bert_jax.files.printable import printable

BAD_INPUT = 2
# Exit code where another process was lost (EX_TEMPFAIL): the same command goes on from the last checkpoint.
LOST = 75
# Seconds between two signs of life, and of silence until a process counts as lost.
HEARTBEAT, SILENCE = 5.0, 30.0
# Seconds for a child to end by itself where another's input was bad (its own most likely is, and it says so better),
# and for another supervisor to hang up.
GRACE = 10.0
# Seconds for a connection to show that it knows the secret, and the most of those that haven't yet: of more, the first
# to come gives way. An honest one takes a millisecond.
HELLO, STRANGERS = 10.0, 256
# Seconds between two tries to reach process 0.
RETRY = 1.0
# Seconds until a shared file system shows a file on all machines.
SHARED = 90.0
# Bytes of a line, and characters of another process's that are printed.
LINE, TEXT = 1 << 14, 500
# The secret's name in the environment, and its file in the workdir otherwise.
SECRET, FILE = "BERT_JAX_SECRET", ".rendezvous"

# What a message may hold, and of which type.
FIELDS = {"process": int, "processes": int, "version": str, "host": str, "welcome": bool, "start": bool}
FIELDS |= {"end": str, "code": int, "ended": int, "stopped": int}
HELLO_FIELDS = {"process", "processes", "version", "host"}


class End(Exception):
    """The run is over, for a reason that isn't this process's own; with its exit code."""

    def __init__(self, reason: str, code: int | None = LOST):
        super().__init__(reason)
        self.code = code if code == BAD_INPUT else LOST


class _Unknown(Exception):
    """The other side doesn't know the secret."""


def plain(text: str) -> str:
    """Another process's text in one line, not too long, with what steers a terminal or turns text around escaped."""
    return printable(text[:TEXT])


def _told(message: dict) -> End:
    """The end that another process tells of."""
    return End(plain(message["end"]), message.get("code"))


# ---- The secret -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _written(workdir: Path) -> Iterator[bytes]:
    """The run's secret: that of the environment, or a fresh one, in a file of its owner's while the block lasts."""
    if given := _given():
        yield given
        return
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir}: is a file; a --workdir is a folder")
    file, secret = workdir / FILE, secrets.token_hex(32).encode()
    made = [] if storage.is_remote(workdir) else [f for f in (workdir, *workdir.parents) if not f.exists()]
    storage.make_folder(workdir)
    try:
        storage.remove(file)  # A run's that was killed.
        if storage.is_remote(file):
            file.write_bytes(secret)
        else:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secret)
        yield secret
    finally:
        if _known(workdir) == secret:
            storage.remove(file)
        for folder in made:  # Bad input leaves nothing behind.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _known(workdir: Path) -> bytes | None:
    """The run's secret; None where it isn't there yet, or the workdir is another than process 0's."""
    if given := _given():
        return given
    try:
        with (workdir / FILE).open("rb") as stream:
            return stream.read(LINE)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _given() -> bytes | None:
    given = os.environ.get(SECRET)
    if given is not None and len(given) < 32:
        raise InputError(f"{SECRET}: has {len(given)} characters, must have 32 or more, as of openssl rand -hex 32")
    return os.fsencode(given) if given else None


# ---- A connection ---------------------------------------------------------------------------------------------------


class _Peer:
    """The connection to another supervisor.

    Each sends a line with a nonce, from then on lines of a code and a JSON object, an empty one as a sign of life. The
    code is made of the secret, both nonces, who sends it, and how many lines came before: no line is of any use twice.
    """

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.name, self._reader, self._writer = name, reader, writer
        self.ended: int | None = None  # Once it has ended, the signal that stopped it, or 0.
        self.listening: asyncio.Task | None = None  # The task that reads from it.
        self._life: asyncio.Task | None = None

    async def meet(self, secret: bytes, hub: bool) -> None:
        ours = secrets.token_hex(32).encode()
        self._writer.write(ours + b"\n")
        theirs = (await self._line()).rstrip(b"\n")
        if not re.fullmatch(b"[0-9a-f]{64}", theirs):
            raise _Unknown
        nonces = ours + theirs if hub else theirs + ours
        keys = [hmac.digest(secret, who + nonces, "sha256") for who in (b"hub", b"member")]
        self._key, self._their_key = keys if hub else reversed(keys)
        self._sent = self._received = 0

    def live(self) -> None:
        """From now on shows that this process is alive."""
        self._life = asyncio.create_task(self._show_life())

    async def _show_life(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await self.send()

    async def send(self, **message) -> None:
        content = json.dumps(message).encode()
        line = _code(self._key, self._sent, content) + b" " + content + b"\n"
        self._sent += 1
        with contextlib.suppress(OSError):
            self._writer.write(line)
            await self._writer.drain()

    async def receive(self) -> dict:
        """The next message that is more than a sign of life; raises `End` where none will come any more."""
        while True:
            try:
                line = await asyncio.wait_for(self._line(), SILENCE)
            except TimeoutError:
                raise End(f"{self.name} was lost: no sign of life for {SILENCE:.0f} seconds") from None
            if not line:
                raise End(f"{self.name} was lost: its connection ended")
            message = self._read(line)
            if message is None:
                raise self._astray()
            if message:
                return message

    async def _line(self) -> bytes:
        """Empty where the connection has ended."""
        try:
            return await self._reader.readline()
        except OSError:
            return b""
        except ValueError:  # Longer than `LINE`.
            return b"\n"

    def _read(self, line: bytes) -> dict | None:
        """What a line says; None where it isn't the other side's, or not what one says here."""
        code, _, content = line.rstrip(b"\n").partition(b" ")
        if not hmac.compare_digest(code, _code(self._their_key, self._received, content)):
            return None
        self._received += 1
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            return None
        known = isinstance(message, dict) and all(FIELDS.get(name) is type(x) for name, x in message.items())
        return message if known else None

    def signal_in(self, message: dict, name: str) -> int:
        """The signal, or 0, that a field names."""
        if message.get(name) not in (0, *ENDING):
            raise self._astray()
        return message[name]

    def _astray(self) -> End:
        return End(f"{self.name} was lost: something else came by its connection")

    def close(self) -> None:
        if self._life:
            self._life.cancel()
        self._writer.close()


def _code(key: bytes, count: int, content: bytes) -> bytes:
    return hmac.digest(key, b"%d " % count + content, "sha256").hex().encode()


# ---- A process's view of the others ---------------------------------------------------------------------------------


class _Link:
    """Entered when all have come; `over` holds the `End` where one is lost."""

    def __init__(self, place: Place, workdir: Path, timeout: float):
        self._place, self._workdir, self._timeout = place, workdir, timeout
        self._name = f"process {place.process} ({socket.gethostname()})"
        self._hello = {"process": place.process, "processes": place.processes, "version": __version__}
        self.over: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def _end(self, end: End) -> None:
        if not self.over.done():
            self.over.set_result(end)


class Hub(_Link):
    """That of process 0, where the others come together."""

    async def __aenter__(self):
        self._peers: dict[int, _Peer] = {}
        self._strangers: dict[asyncio.Task, None] = {}  # In the order in which they came.
        self._refused = 0
        self._changed = asyncio.Event()
        with _written(self._workdir) as self._secret:
            try:
                host, port = addresses(self._place.host), self._place.port
                self._server = await asyncio.start_server(self._take_up, host, port, limit=LINE)
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
            # They hang up when they have read why. Closed with a sign of life unread, TCP would drop what was sent.
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
        """When all have ended: the signal that stopped the run, 0 if none did; `number` stopped this process."""
        await self._all(lambda process: self._peers[process].ended is not None, "didn't end")
        numbers = {number, *(peer.ended or 0 for peer in self._peers.values())}
        # SIGINT to one says of all of them that they shall not be started again.
        stopped = signal.SIGINT if signal.SIGINT in numbers else max(numbers)
        await self._tell(stopped=int(stopped))
        return stopped

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
                which = f"process {', '.join(missing()[:20])} of {self._place.processes}"
                refused = f"; {self._refused} connections didn't know the run's secret" if self._refused else ""
                raise End(f"{which} {otherwise} within {self._timeout:.0f} seconds (--timeout){refused}")
        if self.over.done():
            raise self.over.result()

    async def _tell(self, **message) -> None:
        for peer in self._peers.values():
            await peer.send(**message)

    async def _take_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Peer("a process", reader, writer)
        with contextlib.suppress(asyncio.CancelledError):  # At the end, asyncio cancels it, and would tell of that.
            try:
                if hello := await self._greet(peer):
                    await self._listen(peer, hello["process"])
            finally:
                if peer not in self._peers.values():
                    peer.close()

    async def _greet(self, peer: _Peer) -> dict | None:
        """What another process says of itself; None of one that isn't of the run."""
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
                    raise _Unknown
        except (End, _Unknown, TimeoutError):
            self._refused += 1
            return None
        finally:
            self._strangers.pop(task, None)
        peer.name = plain(f"process {hello['process']} ({hello['host']})")
        if problem := self._misfit(hello):
            await peer.send(end=plain(f"{peer.name} {problem}"), code=BAD_INPUT)
            return None
        return hello

    async def _listen(self, peer: _Peer, number: int) -> None:
        self._peers[number] = peer
        peer.listening = asyncio.current_task()
        peer.live()
        self._changed.set()
        await peer.send(welcome=True)
        try:
            message = await peer.receive()
            if "end" in message:
                raise _told(message)
            peer.ended = peer.signal_in(message, "ended")
        except End as end:
            peer.ended = 0
            self._end(end)
        self._changed.set()

    def _misfit(self, hello: dict) -> str | None:
        for name in ("processes", "version"):
            if hello[name] != self._hello[name]:
                return f"was started with {name} {hello[name]}, process 0 with {self._hello[name]}"
        if not 1 <= hello["process"] < self._place.processes:
            return f"isn't one of 1 to {self._place.processes - 1}"
        if hello["process"] in self._peers:
            return f"is there already, as {self._peers[hello['process']].name}"
        return None


class Member(_Link):
    """That of any other process."""

    async def __aenter__(self):
        self._stopped = 0
        self._hub = await self._connect()
        try:
            message = await self._hub.receive()
            if "end" in message:
                raise _told(message)
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
        await self._hub.send(end=plain(f"{self._name} {reason}"), code=code)
        await asyncio.wait({self._listening}, timeout=GRACE)

    async def finish(self, number: int) -> int:
        """When all have ended: the signal that stopped the run, 0 if none did; `number` stopped this process."""
        await self._hub.send(ended=number)
        await asyncio.wait({self._listening}, timeout=self._timeout)  # Process 0 tells when all have ended.
        return self._stopped or number

    async def _connect(self) -> _Peer:
        """The connection to process 0, once it has shown that it knows the secret."""
        _given()  # One that is no good is told before anything is waited for.
        clock = asyncio.get_running_loop().time
        seconds, begin, address = self._timeout, clock(), f"{self._place.host}:{self._place.port}"
        while True:
            try:
                return await asyncio.wait_for(self._try(), HELLO)
            except (OSError, TimeoutError):
                problem, code = f"process 0 didn't answer at {address}", LOST
            except _Unknown:
                seconds = min(seconds, clock() - begin + SHARED)  # Where the file system doesn't show it here yet.
                where = SECRET if _given() else f"{self._workdir / FILE} (--workdir must be one that all share)"
                problem, code = f"what answers at {address} didn't show that it knows the secret of {where}", BAD_INPUT
            if clock() - begin > seconds:
                raise End(f"{problem} within {seconds:.0f} seconds (--timeout)", code)
            await asyncio.sleep(RETRY)

    async def _try(self) -> _Peer:
        reader, writer = await asyncio.open_connection(self._place.host, self._place.port, limit=LINE)
        hub = _Peer(f"process 0 ({self._place.host})", reader, writer)
        try:
            await hub.meet(_known(self._workdir) or secrets.token_bytes(), hub=False)
            await hub.send(host=socket.gethostname(), **self._hello)
            try:
                message = await hub.receive()
            except End:
                raise _Unknown from None
            if "end" in message:
                raise _told(message)
            hub.live()
            return hub
        except BaseException:
            writer.close()
            raise

    async def _listen(self) -> None:
        try:
            message = await self._hub.receive()
            if "end" in message:
                raise _told(message)
            self._stopped = self._hub.signal_in(message, "stopped")
        except End as end:
            self._end(end)


# ---- Where process 0 listens ----------------------------------------------------------------------------------------


def addresses(host: str) -> list[str] | None:
    """Those on which process 0 listens, found under `host` by the others.

    None, which is all of them, for a name: others may know it by another address than this machine; and for an address
    that stands for this machine elsewhere, as that of a service.
    """
    try:
        found = ["127.0.0.1", "::1"] if host == "localhost" else [str(ipaddress.ip_address(host))]
    except ValueError:
        return None
    return [address for address in found if _is_ours(address)] or None


def _is_ours(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return True
