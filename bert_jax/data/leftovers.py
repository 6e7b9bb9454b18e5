"""Files that a stopped run leaves for the one that continues it, each with a checksum, so that none is used damaged."""

import sys
import zlib
from pathlib import Path
from typing import Any

from bert_jax.config import InputError
from bert_jax.files import contents, storage
from bert_jax.files.printable import say


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


def read_json(file: Path, shape: Any) -> Any:
    """The value of a JSON file, of a shape as `contents.check_values` takes it. Raises `Damaged` or FileNotFoundError.

    A checksum doesn't say who wrote a file: it may be right, and the value wrong.
    """
    return value(read(file), shape, file)


def value(content: str | bytes, shape: Any, file: Path) -> Any:
    """The value of a JSON text that is in a file. Raises `Damaged`."""
    try:
        return checked(contents.json_value(content, halves=True), shape, file)
    except ValueError as error:
        raise Damaged(f"{file}: damaged ({error})") from None


def checked(values: Any, shape: Any, file: Path) -> Any:
    """The values of a file. Raises `Damaged` where they haven't this shape."""
    try:
        contents.check_values(values, shape, file)
    except contents.NotTheFile as error:
        raise Damaged(str(error).removesuffix(f"; {contents.AGAIN}")) from None
    return values


def read_if_whole(file: Path, shape: Any) -> Any:
    """As `read_json`; None where the file doesn't exist, or is damaged and has to be made again, which is printed."""
    try:
        return read_json(file, shape)
    except FileNotFoundError:
        return None
    except Damaged as error:
        say(f"{error}; it is made again", file=sys.stderr)
        return None
