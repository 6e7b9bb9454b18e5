"""Text files: recognised once, then read; plain ones in parts by any process, compressed ones from their start."""

import functools
import glob
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.data.encodings import not_utf8, opener
from bert_jax.data.formats import BadLine, Document, Format
from bert_jax.data.recognition import format_of, may_be_json
from bert_jax.files import contents

# Bytes at a file's start by which its format is recognised.
HEAD = 1 << 16
# Size of a compressed file's text over the file's size: a guess, for planning only.
COMPRESSION = 3.5
DAMAGED = (EOFError, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class TextFile:
    """A text file, with its format."""

    path: Path
    state: tuple[int, int]
    """Size in bytes, and time of the last change in nanoseconds: a file with the same state is taken as unchanged."""
    open: Callable
    """`open`, or the equivalent function for a compressed file."""
    format: Format

    @property
    def compressed(self) -> bool:
        return self.open is not open

    @property
    def size(self) -> int:
        """Estimated number of bytes of text in the file."""
        return int(self.state[0] * (COMPRESSION if self.compressed else 1))

    def documents(self) -> Iterator[Document]:
        """All documents of the file, in order. Raises `InputError` naming file and line."""
        lines = _Numbered(self._lines())
        try:
            yield from self.format.documents(lines)
        except BadLine as problem:
            raise InputError(f"{self.path}, line {lines.number}: {problem}") from None
        except UnicodeDecodeError:
            raise not_utf8(self.path) from None
        except (*DAMAGED, OSError) as error:
            raise _unreadable(self.path, error, f", after line {lines.number}") from None

    def _lines(self) -> Iterator[str]:
        with self.open(self.path, "rt", encoding="utf-8-sig", newline="\n") as stream:
            while line := stream.readline(self.format.longest_line):
                yield line


@dataclass(frozen=True)
class Part:
    """The bytes of a plain file from the first cut at or after `start` to the first one at or after `end`."""

    file: str
    start: int
    end: int
    format: Format

    @property
    def size(self) -> int:
        return self.end - self.start

    def documents(self) -> Iterator[Document]:
        """The part's documents, in order. Raises `InputError` naming file and line."""
        start, content = self._read()
        try:
            lines = _Numbered(content.decode("utf-8" if start else "utf-8-sig").split("\n"))
        except UnicodeDecodeError:
            raise not_utf8(Path(self.file)) from None
        try:
            yield from self.format.documents(lines)
        except BadLine as problem:
            with open(self.file, "rb") as stream:
                before = stream.read(start).count(b"\n")
            raise InputError(f"{self.file}, line {before + lines.number}: {problem}") from None

    def digest(self) -> bytes:
        """A hash that is equal only for parts with the same documents."""
        start, content = self._read()
        return (
            hashlib.blake2b(content, digest_size=16, person=b"start" * (not start)).digest()
            + repr(self.format).encode()
        )

    def _read(self) -> tuple[int, bytes]:
        """The position of the first cut, and the bytes from there to the second."""
        try:
            with open(self.file, "rb") as stream:
                start, end = self.format.cut(stream, self.start), self.format.cut(stream, self.end)
                stream.seek(start)
                return start, stream.read(end - start)
        except OSError as error:
            raise _unreadable(self.file, error) from None


class _Numbered:
    """Iterates over lines, and knows the number of the line that was read last."""

    def __init__(self, lines: Iterable[str]):
        self.number = 0
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            yield line


def _unreadable(file: str | Path, error: Exception, where: str = "") -> InputError:
    if isinstance(error, OSError) and error.strerror:
        return InputError(contents.what_to_do(error, file))
    return InputError(f"{file}{where}: damaged compressed file ({error}); copy or make it again")


def text_files(patterns: Iterable[str], text_field: str) -> dict[str, list[TextFile]]:
    """The files of each glob, in order. Raises `InputError` for a glob without files, and a file that isn't text."""
    seen: dict[Path, str] = {}
    files: dict[str, list[TextFile]] = {}
    for pattern in patterns:
        files.setdefault(pattern, [])
        for path in _expand(pattern):
            if before := seen.get(path.resolve()):
                raise InputError(f"{path}: is in corpus.files twice, by {before!r} and {pattern!r}; name it once")
            seen[path.resolve()] = pattern
            status = path.stat()
            files[pattern].append(_recognised(path, (status.st_size, status.st_mtime_ns), text_field))
    return files


def _expand(pattern: str) -> list[Path]:
    matches = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
    paths = [Path(match) for match in matches if Path(match).is_file()]
    if not paths:
        hint = "is a folder; give its files, for example " + f"'{pattern.rstrip('/')}/*.txt'"
        raise InputError(f"{pattern}: {hint if Path(pattern).is_dir() else 'no such file'}")
    return paths


@functools.lru_cache(1 << 17)  # Files are listed several times.
def _recognised(path: Path, state: tuple[int, int], text_field: str) -> TextFile:
    try:
        function = opener(path)
        with function(path, "rb") as stream:
            head = stream.read(HEAD)
            if may_be_json(head):
                head += stream.readline()  # The rest of the first line, if it is longer.
    except (*DAMAGED, OSError) as error:
        raise _unreadable(path, error) from None
    return TextFile(path, state, function, format_of(path, head, text_field))
