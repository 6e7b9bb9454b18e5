"""Reads a task's text files whole: their content decides what they are, not their names."""

import gzip
import lzma
import re
import zlib
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.data.encodings import iconv, not_utf8, opener, utf_16_or_32
from bert_jax.data.recognition import not_text
from bert_jax.files import contents

SUFFIXES = (".gz", ".xz", ".bz2")
# Bytes of the largest file that is read, unpacked: it is read whole, and as examples it takes ten times its size.
MOST = 1 << 32
WEB_PAGE = re.compile(r"\s*<(?:!doctype html|html\b).*</html>\s*", re.IGNORECASE | re.DOTALL)


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, plain or compressed, without a byte order mark; single CRs at line ends become LFs.

    Raises `InputError` that names the file, what it is if it isn't text, and the remedy.
    """
    data = _content(file)
    if what := not_text(file, data):
        raise InputError(f"{file}: {what}")
    try:
        text = data.decode().lstrip("\ufeff")
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    if "\0" in text:
        raise _with_nuls(file, data)
    if WEB_PAGE.fullmatch(text):
        raise InputError(f"{file}: is a web page, not the file; download the file itself")
    returns = text.count("\r")
    if returns and returns - text.count("\r\n") > text.count("\n"):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def plain_name(file: Path) -> Path:
    """The file's name without the suffix of its compression."""
    return file.with_suffix("") if file.suffix in SUFFIXES else file


def _content(file: Path) -> bytes:
    try:
        contents.check_ends(file)
        with opener(file)(file, "rb") as stream:
            data = contents.read_whole(stream, MOST)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{file}: is a folder; name a file in it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError):
        raise InputError(f"{file}: not a whole compressed file; copy it again") from None
    except OSError as error:
        raise InputError(
            contents.what_to_do(error, file) if error.strerror else f"{file}: damaged ({error}); copy it again"
        ) from None
    if data is None:
        raise InputError(f"{file}: larger than {MOST:,} bytes, unpacked; take a part of it")
    return data


def _with_nuls(file: Path, data: bytes) -> InputError:
    where = f"{file}, line {data[: data.index(0)].count(10) + 1}"
    if encoding := utf_16_or_32(data):
        return InputError(f"{where}: not UTF-8; {iconv(file, encoding)}")
    return InputError(f"{where}: has a NUL byte, so it is damaged or no text; copy it again, or write it anew")
