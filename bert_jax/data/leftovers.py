"""Files that a run leaves for the one that goes on: each with a checksum before it, so that none is used damaged."""

import sys
import zlib
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.files import storage


class Damaged(InputError):
    """A file isn't as it was written."""


def write(file: Path, content: bytes) -> None:
    storage.write_whole(file, b"%08x\n" % zlib.crc32(content) + content)


def read(file: Path) -> bytes:
    """Raises `Damaged`, or FileNotFoundError."""
    checksum, content = (whole := file.read_bytes())[:9], whole[9:]
    if checksum != b"%08x\n" % zlib.crc32(content):
        raise Damaged(f"{file}: damaged, or left by another version of bert_jax")
    return content


def read_if_whole(file: Path) -> bytes | None:
    """None where there is no such file, or one that has to be made again, which is said."""
    try:
        return read(file)
    except FileNotFoundError:
        return None
    except Damaged as error:
        print(f"{error}; it is made again", file=sys.stderr)
        return None
