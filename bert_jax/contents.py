"""Files that aren't what their name says: what a clone without git-lfs, or a download that failed, leaves behind."""

import json
import re
from pathlib import Path

from bert_jax.config import InputError

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
# The kinds of weights that are read, for one under another's name.
WEIGHTS = (
    (SAFETENSORS, "holds safetensors; call it model.safetensors"),
    (ZIP, "a zip archive; call it pytorch_model.bin if torch wrote it, unpack any other"),
    (PICKLE, "a pickle; call it pytorch_model.bin if torch wrote it"),
)
HEAD = 512  # bytes that are looked at
PLAIN = re.compile(r"[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class NotTheFile(InputError):
    """A file is there, but not what belongs in it."""


def check(file: Path) -> bytes:
    """Returns how a file begins; raises `NotTheFile` for a link to nothing, an empty file, a pointer, a web page..."""
    if isinstance(file, Path) and file.is_symlink() and not file.exists():
        raise NotTheFile(f"{file}: a link to {file.readlink()}, where nothing is; copy the file itself (cp -L)")
    if file.is_dir():
        raise NotTheFile(f"{file}: a folder, must be a file")
    with file.open("rb") as opened:
        beginning = opened.read(HEAD)
    if not beginning:
        raise NotTheFile(f"{file}: empty; copy it again")
    _refuse(file, beginning, BEGINNINGS)
    return beginning


def check_links(folder: Path) -> None:
    """Raises `NotTheFile` for a link in the folder that leads to nothing, as a copy of a cache is full of."""
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not file.exists():
            check(file)


def plain_name(name: object, file: Path) -> str:
    """The name of another file, or folder, that a file says is beside it: one name, which leads nowhere else.

    Whatever a file names is opened, and written, by way of this. Raises `NotTheFile` for all else.
    """
    if not isinstance(name, str) or not PLAIN.fullmatch(name) or name in (".", "..") or len(name.encode()) > 255:
        raise NotTheFile(
            f"{file}: names {name!r:.80}, must be a plain name of what lies beside it; bring a file that you trust"
        )
    return name


def check_weights(file: Path, *kinds: bytes) -> None:
    """Raises `NotTheFile` too where a file of weights isn't of one of the `kinds`, which are patterns as above."""
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


def json_object(file: Path, kind: type = dict):
    """The object, or the list, in a JSON file. Raises `NotTheFile` where it holds none, FileNotFoundError where there
    is no file."""
    check(file)
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))  # Editors on Windows write a mark before it.
    except (ValueError, RecursionError) as error:
        raise NotTheFile(f"{file}: damaged ({error}); copy it again") from None
    if not isinstance(values, kind):
        raise NotTheFile(f"{file}: damaged (no JSON {'object' if kind is dict else 'list'}); copy it again")
    return values
