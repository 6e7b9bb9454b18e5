"""The connection between two supervisors of a run: lines that only who knows the run's secret can have written.

Whoever connects proves that it knows the secret, without sending it, and each line that follows carries a code made
with it: nothing is believed, nor read any further, that has none.
"""

import asyncio
import contextlib
import hmac
import json
import re
import secrets

from bert_jax.cluster.signals import ENDING
from bert_jax.files.printable import printable

BAD_INPUT = 2
# Exit code where another process was lost (EX_TEMPFAIL): the same command goes on from the last checkpoint.
LOST = 75
# Seconds between two signs of life, and of silence until a process counts as lost.
HEARTBEAT, SILENCE = 5.0, 30.0
# Bytes of a line, and characters of another process's that are printed.
LINE, TEXT = 1 << 14, 500

# What a message may hold, and of which type.
FIELDS = {"process": int, "processes": int, "version": str, "host": str, "welcome": bool, "start": bool}
FIELDS |= {"end": str, "code": int, "ended": int, "stopped": int}


class End(Exception):
    """The run is over, for a reason that isn't this process's own; with its exit code."""

    def __init__(self, reason: str, code: int | None = LOST):
        super().__init__(reason)
        self.code = code if code == BAD_INPUT else LOST

    @classmethod
    def told(cls, message: dict) -> "End":
        """The end that another process tells of."""
        return cls(plain(message["end"]), message.get("code"))


class Unknown(Exception):
    """The other side doesn't know the secret."""


def plain(text: str) -> str:
    """Another process's text in one line, not too long, with what steers a terminal or turns text around escaped."""
    return printable(text[:TEXT])


class Peer:
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
        """Exchanges nonces with the other side, as the hub or as a member; raises `Unknown` where none comes back."""
        ours = secrets.token_hex(32).encode()
        self._writer.write(ours + b"\n")
        theirs = (await self._line()).rstrip(b"\n")
        if not re.fullmatch(b"[0-9a-f]{64}", theirs):
            raise Unknown
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
        line = code(self._key, self._sent, content) + b" " + content + b"\n"
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
        theirs, _, content = line.rstrip(b"\n").partition(b" ")
        if not hmac.compare_digest(theirs, code(self._their_key, self._received, content)):
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


def code(key: bytes, count: int, content: bytes) -> bytes:
    """What shows that a line is of someone who knows the secret, in hexadecimal digits."""
    return hmac.digest(key, b"%d " % count + content, "sha256").hex().encode()
