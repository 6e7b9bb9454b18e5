"""Files opened by what they hold, plain or compressed, and what to type where that isn't UTF-8."""

import bz2
import gzip
import lzma
import shlex
from collections.abc import Callable
from pathlib import Path

from bert_jax.config import InputError

# The first bytes of compressed files, what opens them, and the command that unpacks them.
COMPRESSED = {
    b"\x1f\x8b\x08": (gzip.open, "gzip"),
    b"\xfd7zXZ\0": (lzma.open, "xz"),
    b"BZh91AY&SY": (bz2.open, "bzip2"),
}


def opener(file: Path) -> Callable:
    """`open`, or its like for a file that is compressed; its name doesn't matter."""
    return next((function for function, _ in _compression(file)), open)


def _compression(file: Path) -> list[tuple[Callable, str]]:
    with open(file, "rb") as stream:
        start = stream.read(max(map(len, COMPRESSED)))
    return [entry for magic, entry in COMPRESSED.items() if start.startswith(magic)]


def not_utf8(file: Path) -> InputError:
    """Says where a file's first byte is that isn't UTF-8, and what to type."""
    number, encoding, byte = 0, None, "in the middle of a character"
    other_than_ascii = False
    with opener(file)(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start}: {error.object[error.start]:#04x}"
                cut = error.reason == "unexpected end of data"
                encoding = utf_16_or_32(line) if number == 1 else None
                other_than_ascii |= cut or not line[: error.start].isascii()
                break
            other_than_ascii |= not line.isascii()
    return InputError(f"{file}, line {number}: not UTF-8 ({byte}); {iconv(file, encoding, damaged=other_than_ascii)}")


def iconv(file: Path, encoding: str | None, damaged: bool = False) -> str:
    """What to type to have a file in UTF-8: from the encoding, if it is known, or without bytes that were `damaged`."""
    target = shlex.quote(str(beside(file, "utf8")))
    unpack = next((f"{command} -dc {shlex.quote(str(file))} | " for _, command in _compression(file)), "")
    source = "" if unpack else f"{shlex.quote(str(file))} "
    if not encoding and damaged:
        return f"it is but for some bytes; without those: {unpack}iconv -c -f UTF-8 -t UTF-8 {source}> {target}"
    guess = "" if encoding else " (or CP1251, GB18030, SHIFT_JIS ... where it isn't a Western European language)"
    return f"convert it: {unpack}iconv -f {encoding or 'CP1252'} -t UTF-8 {source}> {target}{guess}"


def beside(file: Path, what: str) -> Path:
    """A name for the file when it is changed: a.txt or a.txt.gz becomes a.utf8.txt."""
    plain = file.with_suffix("") if _compression(file) and len(file.suffixes) > 1 else file
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
