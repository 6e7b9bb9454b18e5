"""The connection between two supervisors of a run: only a process that knows the run's secret can write its lines.

Each side proves that it knows the secret, without sending it, and each line that follows carries a code made with the
secret: a line without a valid code is neither believed nor parsed.
"""

import asyncio
import contextlib
import hmac
import json
import re
import secrets

from bert_jax.cluster.signals import ENDING
from bert_jax.files.errors import BAD_INPUT, LOST
from bert_jax.files.printable import printable

# Seconds between two signs of life, and of silence until a process counts as lost.
HEARTBEAT, SILENCE = 5.0, 30.0
# Most bytes in a line, and most characters of another process's text that are printed.
LINE, TEXT = 1 << 14, 500

# The fields that a message may have, and their types.
FIELDS = {"process": int, "processes": int, "version": str, "host": str, "welcome": bool, "start": bool}
FIELDS |= {"end": str, "code": int, "ended": int, "stopped": int}


class End(Exception):
    """The run is over for a reason outside this process; `code` is the exit code."""

    def __init__(self, reason: str, code: int | None = LOST):
        super().__init__(reason)
        self.code = code if code == BAD_INPUT else LOST

    @classmethod
    def from_message(cls, message: dict) -> "End":
        """The end that another process's message reports."""
        return cls(plain(message["end"]), message.get("code"))


class Unknown(Exception):
    """The other side doesn't know the secret."""


def plain(text: str) -> str:
    """Another process's text in one line, cut to `TEXT`; what controls a terminal or reverses text is escaped."""
    return printable(text[:TEXT])


class Peer:
    """The connection to another supervisor.

    Each side sends a line with a nonce, then lines with a code and a JSON object, which is empty for a sign of life.
    The code is made from the secret, both nonces, the sender, and the number of earlier lines: no line can be replayed.
    """

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.name, self._reader, self._writer = name, reader, writer
        self.ended: int | None = None  # Once the other process has ended: the signal that stopped it, or 0.
        self.listening: asyncio.Task | None = None  # The task that reads from it.
        self._life: asyncio.Task | None = None

    async def meet(self, secret: bytes, hub: bool) -> None:
        """Exchanges nonces with the other side, as the hub or as a member; raises `Unknown` if none comes back."""
        own_nonce = secrets.token_hex(32).encode()
        self._writer.write(own_nonce + b"\n")
        other_nonce = (await self._line()).rstrip(b"\n")
        if not re.fullmatch(b"[0-9a-f]{64}", other_nonce):
            raise Unknown
        nonces = own_nonce + other_nonce if hub else other_nonce + own_nonce
        keys = [hmac.digest(secret, who + nonces, "sha256") for who in (b"hub", b"member")]
        self._key, self._other_key = keys if hub else reversed(keys)
        self._sent = self._received = 0

    def live(self) -> None:
        """Sends signs of life from now on."""
        self._life = asyncio.create_task(self._show_life())

    async def _show_life(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await self.send()

    async def send(self, **message) -> None:
        content = json.dumps(message).encode()
        line = code(self._key, self._sent, content) + b" " + content + b"\n"
        self._sent += 1
        if self._writer.is_closing():  # asyncio would print a warning. That the other side is lost shows in `receive`.
            return
        with contextlib.suppress(OSError):
            self._writer.write(line)
            await self._writer.drain()

    async def receive(self) -> dict:
        """The next message that is more than a sign of life; raises `End` if no more can come."""
        while True:
            try:
                line = await asyncio.wait_for(self._line(), SILENCE)
            except TimeoutError:
                raise End(f"{self.name} was lost: no sign of life for {SILENCE:.0f} seconds") from None
            if not line:
                raise End(f"{self.name} was lost: its connection ended")
            message = self._read(line)
            if message is None:
                raise self._unexpected()
            if message:
                return message

    async def _line(self) -> bytes:
        """The next line; empty if the connection has ended."""
        try:
            return await self._reader.readline()
        except OSError:
            return b""
        except ValueError:  # Longer than `LINE`.
            return b"\n"

    def _read(self, line: bytes) -> dict | None:
        """The message in a line; None if the other side didn't write it, or it isn't a known message."""
        line_code, _, content = line.rstrip(b"\n").partition(b" ")
        if not hmac.compare_digest(line_code, code(self._other_key, self._received, content)):
            return None
        self._received += 1
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            return None
        known = isinstance(message, dict) and all(FIELDS.get(name) is type(x) for name, x in message.items())
        return message if known else None

    def signal_in(self, message: dict, name: str) -> int:
        """The signal in a field of a message, or 0 for none."""
        if message.get(name) not in (0, *ENDING):
            raise self._unexpected()
        return message[name]

    def _unexpected(self) -> End:
        return End(f"{self.name} was lost: its connection carried something unexpected")

    def close(self) -> None:
        if self._life:
            self._life.cancel()
        self._writer.close()


def code(key: bytes, count: int, content: bytes) -> bytes:
    """The code that proves that a line's sender knows the secret, in hexadecimal digits."""
    return hmac.digest(key, b"%d " % count + content, "sha256").hex().encode()
