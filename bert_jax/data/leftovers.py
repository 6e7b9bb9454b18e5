"""Files that a stopped run leaves for the one that continues it, each with a checksum, so that none is used damaged."""

import sys
import zlib
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.files import contents, storage


class Damaged(InputError):
    """A file has changed since it was written."""


def write(file: Path, content: bytes) -> None:
    storage.write_whole(file, b"%08x\n" % zlib.crc32(content) + content)


def read(file: Path) -> bytes:
    """The content of a file. Raises `Damaged`, FileNotFoundError, or `NotTheFile` for a device or a pipe."""
    contents.check_kind(file)
    checksum, content = (whole := file.read_bytes())[:9], whole[9:]
    if checksum != b"%08x\n" % zlib.crc32(content):
        raise Damaged(f"{file}: damaged, or left by another version of bert_jax")
    return content


def read_if_whole(file: Path) -> bytes | None:
    """The content of a file; None where it doesn't exist, or is damaged and has to be made again, which is printed."""
    try:
        return read(file)
    except FileNotFoundError:
        return None
    except Damaged as error:
        print(f"{error}; it is made again", file=sys.stderr)
        return None
