"""Checks of files: those that aren't what their name says, as after a failed download, or that the system refuses;
and the parsing of JSON files."""

import contextlib
import errno
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

from bert_jax.files.errors import InputError

# The remedy for each error of the operating system that a person can correct, and that a second try alone doesn't help.
_ELSEWHERE = "choose another file or folder"
REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "make it writable",
    errno.EIO: "check the disk",
    errno.EBUSY: "end the program that uses it",
    errno.EXDEV: "keep the folder on one disk",
}
REMEDIES |= dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG), _ELSEWHERE)

# How a file begins, what it then is, and what to do.
BEGINNINGS = (
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, not the file itself; run git lfs pull in its folder, or download it again",
    ),
    (
        rb"\s*(?i:<!doctype|<html|<head|<\?xml)",
        "a web page, not the file; download it again, with a token if the page asks for one",
    ),
    (rb"\x1f\x8b\x08|BZh\d|\xfd7zXZ\x00|7z\xbc\xaf|Rar!|(?s:.{257})ustar", "a packed archive; unpack it"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes; bring the model's safetensors or torch file"),
)
SAFETENSORS, ZIP, PICKLE, MSGPACK = rb"(?s:.{5})\x00{3}\{", rb"PK\x03\x04", rb"\x80[\x02-\x05]", rb"[\x81-\x8f\xde\xdf]"
# The formats of weights that are read, to say which one a file has whose name says another.
WEIGHTS = (
    (SAFETENSORS, "holds safetensors; call it model.safetensors"),
    (ZIP, "a zip archive; call it pytorch_model.bin if torch wrote it, unpack any other"),
    (PICKLE, "a pickle; call it pytorch_model.bin if torch wrote it"),
)
HEAD = 512  # bytes that are looked at
PLAIN = re.compile(r"[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

# Bytes of the largest JSON file that is read: the largest tokenizers have 40 MB, and in memory JSON takes ten times its
# size.
MOST_JSON = 1 << 26
PART = 1 << 20  # bytes that are read at once
# The deepest nesting of lists and objects that is read.
DEEPEST = 100
TOO_DEEP = f"more than {DEEPEST} lists and objects in each other"
HALF = re.compile(r"\\u[dD][89a-fA-F]")
AGAIN = "copy it again"
# Names of the JSON types, for error messages.
NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


class NotTheFile(InputError):
    """A file exists, but doesn't hold what it must."""


def what_to_do(error: OSError, file: Path | str | None = None) -> str:
    """The operating system's error for a file, and the remedy, in one line."""
    remedy = REMEDIES.get(error.errno or 0)
    where = file or error.filename or "a file can't be written"
    return f"{where}: {error.strerror}" + (f"; {remedy}" if remedy else "")


def check(file: Path) -> bytes:
    """Returns the first bytes of a file; raises `NotTheFile` for a broken link, an empty file, an LFS pointer, a web
    page..."""
    if isinstance(file, Path) and file.is_symlink() and not file.exists():
        raise NotTheFile(f"{file}: a link to {file.readlink()}, where nothing is; copy the file itself (cp -L)")
    check_kind(file)
    with file.open("rb") as opened:
        beginning = opened.read(HEAD)
    if not beginning:
        raise NotTheFile(f"{file}: empty; copy it again")
    _refuse(file, beginning, BEGINNINGS)
    return beginning


def check_ends(file: Path) -> None:
    """Raises `NotTheFile` for a device or a pipe: opening it, or reading it to its end, may take for ever."""
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise NotTheFile(f"{file}: a device or a pipe, must be a file")


def check_kind(file: Path) -> None:
    """Raises `NotTheFile` for a folder, a device or a pipe."""
    check_ends(file)
    if file.is_dir():
        raise NotTheFile(f"{file}: a folder, must be a file")


def check_kinds(folder: Path) -> None:
    """Raises `NotTheFile` for a device or a pipe in a local folder, or anywhere in the folders in it."""
    folders, seen = [folder], set()
    while folders:
        with contextlib.suppress(FileNotFoundError):  # Another process may remove what it made.
            inner = folders.pop()
            if (inode := (inner.stat().st_dev, inner.stat().st_ino)) in seen:  # Links may lead in circles.
                continue
            seen.add(inode)
            for path in sorted(inner.iterdir()):
                if path.is_dir():
                    folders.append(path)
                else:
                    check_ends(path)


def read_whole(stream: BinaryIO, most: int) -> bytes | None:
    """All bytes of a stream; None where they are more than `most`. (One `read(most)` takes memory for all of these.)"""
    parts, size = [], 0
    while part := stream.read(PART):
        parts.append(part)
        size += len(part)
        if size > most:
            return None
    return b"".join(parts)


def check_links(folder: Path) -> None:
    """Raises `NotTheFile` for a broken link in the folder: copies of a cache are full of them."""
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not file.exists():
            check(file)


def plain_name(name: object, file: Path) -> str:
    """Checks the name of another file or folder that `file` says is beside it, and returns it.

    Every name that comes from a file passes through here before it is opened or written. Raises `NotTheFile` for
    anything but one plain name: a path would lead out of the folder.
    """
    if not isinstance(name, str) or not PLAIN.fullmatch(name) or name in (".", "..") or len(name.encode()) > 255:
        raise NotTheFile(
            f"{file}: names {name!r:.80}, must be a plain name of a file beside it; bring a file that you trust"
        )
    return name


def check_weights(file: Path, *kinds: bytes) -> None:
    """Raises `NotTheFile` where `check` does, and where a file of weights has none of the formats `kinds`, which are
    patterns of its first bytes."""
    beginning = check(file)
    if any(re.match(kind, beginning) for kind in kinds):
        return
    _refuse(file, beginning, WEIGHTS)
    text = beginning.decode("utf-8", "replace")[:-1]  # Its last character may be cut.
    if "\ufffd" not in text and all(letter.isprintable() or letter.isspace() for letter in text):
        raise NotTheFile(f"{file}: text, not weights ({' '.join(text.split())[:60]!r}); download it again")
    raise NotTheFile(f"{file}: cut off or damaged (it doesn't begin as such files do); copy it again")


def _refuse(file: Path, beginning: bytes, kinds: tuple[tuple[bytes, str], ...]) -> None:
    for pattern, what in kinds:
        if re.match(pattern, beginning):
            raise NotTheFile(f"{file}: {what}")


def json_object(file: Path, kind: type = dict, remedy: str = AGAIN):
    """The object, or the list (`kind`), in a JSON file. Raises `NotTheFile` where it holds none, FileNotFoundError
    where there is no file."""
    check(file)
    with file.open("rb") as opened:
        content = read_whole(opened, MOST_JSON)
    if content is None:
        raise NotTheFile(f"{file}: larger than {MOST_JSON:,} bytes, so it isn't the file; {remedy}")
    try:
        values = json_value(content)
    except ValueError as error:
        raise NotTheFile(f"{file}: damaged ({error}); {remedy}") from None
    if not isinstance(values, kind):
        raise NotTheFile(f"{file}: damaged (no JSON {'object' if kind is dict else 'list'}); {remedy}")
    return values


def json_value(text: str | bytes, halves: bool = False, nan: bool = False, pairs: Callable | None = None) -> Any:
    """The value of a JSON text; the last one where a name comes twice.

    All JSON that files hold is parsed here.

    Raises ValueError, with one line, for what isn't JSON or UTF-8 (a byte order mark is skipped), is nested too deep,
    or has numbers of thousands of digits; unless `nan`, for numbers that aren't finite (NaN, 1e999); unless `halves`,
    for halves of a surrogate pair, which JSON may escape but nothing can write. `pairs` makes an object from a list of
    (name, value).
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # Editors on Windows write a byte order mark first.
    try:
        real = None if nan else _real
        values = json.loads(text, parse_constant=real, parse_float=real, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(values)
    if not halves and HALF.search(text):
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"has {ascii(error.object[error.start])}, half a character") from None
    return values


def _real(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} isn't a finite number")
    return value


def _check_depth(values: Any) -> None:
    level = [values]
    for _ in range(DEEPEST):
        values = [value for outer in level for value in (outer.values() if isinstance(outer, dict) else outer)]
        level = [value for value in values if isinstance(value, list | dict)]
    if level:
        raise ValueError(TOO_DEEP)


def finite(values: Any) -> Any:
    """The values with None instead of NaN and infinity, which JSON doesn't have."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def json_checksum(values: Any) -> str:
    """The checksum of JSON values; written and read again, they have the same one."""
    return f"{zlib.crc32(json.dumps(json.loads(json.dumps(values)), sort_keys=True).encode()):08x}"


def with_checksum(values: dict) -> dict:
    """The values and their `checksum`, to be written as JSON."""
    return {**values, "checksum": json_checksum(values)}


def without_checksum(values: dict, file: object, remedy: str = AGAIN) -> dict:
    """The values as they were before `with_checksum`. Raises `NotTheFile` where they are others.

    What an earlier version wrote has no checksum, and is taken as it is.
    """
    rest = {name: value for name, value in values.items() if name != "checksum"}
    if values.get("checksum", checksum := json_checksum(rest)) != checksum:
        raise NotTheFile(f"{file}: damaged (its checksum isn't that of its values); {remedy}")
    return rest


def check_values(values: Any, shape: Any, file: object, remedy: str = AGAIN) -> None:
    """Raises `NotTheFile` that names the first value of a file which doesn't have its expected shape.

    A shape is a type, or a tuple of types; a list with the shape of all its items; {str: the shape of all values}; or
    a dict of names and their shapes, where names that end in "?" may be missing and other names are allowed. A bool is
    not a number; an int is also a float.
    """
    for where, value, expected in _wrong(values, shape, ""):
        actual = f"{value!r:.40}" if value is not ... else "missing"
        raise NotTheFile(f"{file}: damaged ({where or 'it'} is {actual}, must be {expected}); {remedy}")


def _wrong(value: Any, shape: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """Yields (path, value, what it must be) for each value that doesn't have its shape."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            yield where, value, "a list"
            return
        for number, item in enumerate(value):
            yield from _wrong(item, shape[0], f"{where}.{number}".lstrip("."))
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield where, value, "an object"
            return
        if str in shape:
            for name, item in value.items():
                yield from _wrong(item, shape[str], f"{where}.{name}".lstrip("."))
            return
        for name, inner in shape.items():
            item = value.get(name.rstrip("?"), ...)
            if item is not ... or not name.endswith("?"):
                yield from _wrong(item, inner, f"{where}.{name.rstrip('?')}".lstrip("."))
    else:
        types = shape if isinstance(shape, tuple) else (shape,)
        if type(value) is int and {int, float} & {*types}:
            if abs(value) >= 1 << 63:
                yield where, value, "a number below 2**63"
        elif type(value) not in types:
            yield where, value, " or ".join(NAMES[t] for t in types)
