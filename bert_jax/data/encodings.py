"""Files opened by what they hold, plain or compressed, and what to type where that isn't UTF-8."""

import bz2
import gzip
import lzma
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from bert_jax.config import InputError

# The first bytes of compressed files, what opens them, and the command that unpacks them.
COMPRESSED = [
    (re.compile(rb"\x1f\x8b\x08"), gzip.open, "gzip"),
    (re.compile(rb"\xfd7zXZ\0"), lzma.open, "xz"),
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), bz2.open, "bzip2"),
]
DAMAGED = "UTF-8 but for some bytes"


def opener(file: Path) -> Callable:
    """`open`, or its like for a file that is compressed; its name doesn't matter."""
    return _compression(file)[0]


def _compression(file: Path) -> tuple[Callable, str | None]:
    """What opens a file, and the command that unpacks it if it is compressed."""
    with open(file, "rb") as stream:
        start = stream.read(10)
    return next(
        ((function, command) for pattern, function, command in COMPRESSED if pattern.match(start)), (open, None)
    )


def not_utf8(file: Path) -> InputError:
    """Says where a file's first byte is that isn't UTF-8, and what to type."""
    number, byte, encoding = 0, "in the middle of a character", DAMAGED
    good = 0
    with opener(file)(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            good += sum(character > "\x7f" for character in line.decode("utf-8", "ignore"))
            try:
                line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start}: {error.object[error.start]:#04x}"
                bad = line.decode("utf-8", "replace").count("\ufffd")
                # Text of another encoding seldom looks like UTF-8.
                encoding = DAMAGED if good > 2 * bad else _guess(line)
                break
    return InputError(f"{file}, line {number}: not UTF-8 ({byte}); {iconv(file, encoding)}")


def _guess(line: bytes) -> str | None:
    """Windows' encoding for Western Europe, if most letters are ASCII's; others can't be told from a line's bytes."""
    return utf_16_or_32(line) or ("CP1252" if sum(byte > 0x7F for byte in line) < 0.3 * len(line) else None)


def iconv(file: Path, encoding: str | None) -> str:
    """What to type to have a file in UTF-8, from its encoding (None: it isn't known) or without its `DAMAGED` bytes."""
    target, text = shlex.quote(str(beside(file, "utf8"))), printing(file)
    if (
        encoding == DAMAGED
    ):  # iconv takes it for an error if the last character isn't whole; the line's end prevents that.
        return f"it is but for some bytes; without those: ({text}; echo) | iconv -c -f UTF-8 -t UTF-8 > {target}"
    unknown = "" if encoding else " from its own encoding (CP1251, GB18030, SHIFT_JIS, ...)"
    return f"convert it{unknown}: {text} | iconv -f {encoding or 'ENCODING'} -t UTF-8 > {target}"


def printing(file: Path) -> str:
    """The command that prints a file, unpacked."""
    command = _compression(file)[1]
    return f"{f'{command} -dc' if command else 'cat'} {shlex.quote(str(file))}"


def beside(file: Path, what: str) -> Path:
    """A name for the file when it is changed: a.txt or a.txt.gz becomes a.utf8.txt."""
    plain = file.with_suffix("") if opener(file) is not open else file
    return plain.with_name(f"{plain.stem}.{what}{plain.suffix}")


def utf_16_or_32(start: bytes) -> str | None:
    """The encoding of bytes that begin with its mark, or that have a zero beside each character of ASCII."""
    if start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    zeros = [start[i::2].count(0) / max(len(start) // 2, 1) for i in (0, 1)]
    if max(zeros) > 0.2 and min(zeros) < 0.02:
        return "UTF-16BE" if zeros[0] > zeros[1] else "UTF-16LE"
    return None
