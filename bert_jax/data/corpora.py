"""Corpora: the embedded documentation, text files, or a TFDS text data set, as chunks of documents.

A document is a list of lines that aren't blank; a line is a paragraph or a sentence. A chunk of plain files only says
where its text lies, and is read by the process that works on it. Other sources come in pieces (a compressed file, a
shard of a data set), each to be read from its start, and are chunks once they are read.
"""

import ast
import glob
import gzip
import hashlib
import html
import inspect
import io
import lzma
import re
import sysconfig
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from bert_jax.config import CorpusConfig, InputError
from bert_jax.data.text_files import not_utf8

Document = list[str]

CHUNK_BYTES = 1 << 20
# Longer documents are parted: memory stays bounded where a corpus has no blank lines, and next sentences from another
# document can be had near by.
LONGEST_DOCUMENT = 1 << 16  # characters
# How far a plain file is searched for a blank line, a line's end or a space to cut it at.
CUT_WITHIN = 1 << 16
OPENERS = {".gz": gzip.open, ".xz": lzma.open}
# Text of a compressed file, to its size: a guess, for planning only.
COMPRESSION = 3.5


@dataclass(frozen=True)
class Part:
    """The bytes of a plain file from the first cut at or after `start` to that at or after `end`."""

    file: str
    start: int
    end: int


@dataclass(frozen=True)
class Chunk:
    """About `CHUNK_BYTES` of text: parts of plain files, or documents read already. `source` is the corpus's name."""

    source: str
    parts: tuple[Part, ...] = ()
    read: tuple[Document, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in the files, or characters of the documents."""
        return sum(part.end - part.start for part in self.parts) + sum(len(line) for d in self.read for line in d)

    def documents(self, clean: bool) -> Iterator[Document]:
        """Its documents, cleaned or as they stand. Raises `InputError` naming the file and line."""
        documents = (document for part in self.parts for document in _documents_of(_lines_of_part(part)))
        for document in self.read or documents:
            lines = [line for line in map(clean_line, document) if line] if clean else document
            if lines:
                yield lines


@dataclass(frozen=True)
class Piece:
    """What has to be read from its start: a compressed file, a shard of a data set, the documentation."""

    source: str
    read: Callable[[], Iterator[Document]]


def documents(config: CorpusConfig) -> Iterator[Document]:
    """Every document of the corpus, always in the same order."""
    for chunk in chunks(config):
        yield from chunk.documents(config.clean)


def chunks(config: CorpusConfig) -> Iterator[Chunk]:
    """The corpus in chunks, always the same. Raises `InputError` naming the file (and line) that can't be read."""
    return chain.from_iterable(map(chunks_of, pieces(config)))


def pieces(config: CorpusConfig) -> Iterator[Chunk | Piece]:
    """The corpus in pieces and, where it is plain files, chunks, that any process can read by themselves."""
    if config.source == "text":
        for pattern in config.files:
            yield from _text_pieces(pattern)
    elif config.source == "tfds":
        # TensorFlow comes with it, so only here.
        from bert_jax.data.tfds_corpus import tfds_documents, tfds_shards

        for split in tfds_shards(config):
            yield Piece(config.dataset, partial(tfds_documents, config, split))
    else:
        yield Piece("python-docs", python_docs)


def chunks_of(piece: Chunk | Piece) -> Iterator[Chunk]:
    """The chunks of a piece; a chunk is one already."""
    return iter([piece]) if isinstance(piece, Chunk) else read_chunks(piece.source, piece.read())


def sizes(config: CorpusConfig) -> dict[str, int]:
    """About how many bytes of text each source has, known before reading it."""
    if config.source == "text":
        return {pattern: sum(map(_text_size, expand([pattern]))) for pattern in config.files}
    if config.source == "tfds":
        from bert_jax.data.tfds_corpus import tfds_size

        return {config.dataset: tfds_size(config)}
    return {"python-docs": 2 * CHUNK_BYTES}


def _text_size(file: Path) -> int:
    return int(file.stat().st_size * (COMPRESSION if file.suffix in OPENERS else 1))


def place(document: Document) -> float:
    """A place in [0, 1) by the document's content alone."""
    digest = hashlib.blake2b("\n".join(document).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def is_held_out(document: Document, share: float) -> bool:
    """Whether a document belongs to the held-out split: by its content, so that copies lie on the same side."""
    return place(document) < share


# What no tokenizer makes a token of: control characters that aren't white space, and the mark of broken text.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffd]")


def clean_line(line: str) -> str:
    """HTML entities resolved, control characters dropped, Unicode composed (NFC), as released vocabularies have it."""
    if "&" in line:
        line = html.unescape(line)
    if not line.isascii() or not line.isprintable():
        line = unicodedata.normalize("NFC", _CONTROL.sub("", line))
    return line.strip()


def expand(patterns: Iterable[str]) -> list[Path]:
    """The files of the globs, in order; `InputError` for one that names none."""
    files = []
    for pattern in patterns:
        matches = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
        found = [Path(p) for p in matches if Path(p).is_file()]
        if not found:
            hint = "is a folder; give its files, for example " + f"'{pattern.rstrip('/')}/*.txt'"
            raise InputError(f"{pattern}: {hint if Path(pattern).is_dir() else 'no such file'}")
        files += found
    return files


def _text_pieces(pattern: str) -> Iterator[Chunk | Piece]:
    """Large plain files are cut, small ones share a chunk; a compressed one is a piece."""
    parts: list[Part] = []
    room = CHUNK_BYTES
    for file in expand([pattern]):
        if file.suffix in OPENERS:
            yield Piece(pattern, partial(_documents_of_compressed, file))
            continue
        size = file.stat().st_size
        for start in range(0, size, CHUNK_BYTES):
            part = Part(str(file), start, min(start + CHUNK_BYTES, size))
            if part.end - part.start > room and parts:
                yield Chunk(pattern, tuple(parts))
                parts, room = [], CHUNK_BYTES
            parts.append(part)
            room -= part.end - part.start
    if parts:
        yield Chunk(pattern, tuple(parts))


def read_chunks(source: str, documents: Iterable[Document]) -> Iterator[Chunk]:
    """Documents, as they come, in chunks."""
    waiting: list[Document] = []
    characters = 0
    for document in documents:
        waiting.append(document)
        characters += sum(map(len, document))
        if characters >= CHUNK_BYTES:
            yield Chunk(source, read=tuple(waiting))
            waiting, characters = [], 0
    if waiting:
        yield Chunk(source, read=tuple(waiting))


def _lines_of_part(part: Part) -> list[str]:
    """The lines between two cuts, without white space around them."""
    try:
        with open(part.file, "rb") as stream:
            start, end = _cut(stream, part.start), _cut(stream, part.end)
            stream.seek(start)
            text = stream.read(end - start).decode("utf-8" if start else "utf-8-sig")
    except UnicodeDecodeError:
        raise not_utf8(Path(part.file)) from None
    except OSError as error:
        raise InputError(f"{part.file}: {error.strerror}") from None
    return [line.strip() for line in text.split("\n")]


def _cut(stream: io.BufferedReader, at: int) -> int:
    """Where a file is cut at or after a byte: behind a blank line, or else a line, or else a space, or a character."""
    if at == 0:
        return 0
    stream.seek(at)
    window = stream.read(CUT_WITHIN)
    for pattern in (rb"\n\s*\n", rb"\n", rb"\s"):
        if found := re.search(pattern, window):
            return at + found.end()
        if len(window) < CUT_WITHIN:  # The file's last document.
            return at + len(window)
    return at + len(window) - len(window.lstrip(bytes(range(0x80, 0xC0))))


def _documents_of_compressed(file: Path) -> Iterator[Document]:
    return _documents_of(_lines_of_compressed(file))


def _lines_of_compressed(file: Path) -> Iterator[str]:
    """The lines without white space around them; one that is longer than a chunk is cut."""
    number = 0
    try:
        with OPENERS[file.suffix](file, "rt", encoding="utf-8-sig", newline="\n") as stream:
            while line := stream.readline(CHUNK_BYTES):
                number += 1
                yield line.strip()
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{file}, after line {number}: damaged {file.suffix} file ({error})") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def _documents_of(lines: Iterable[str]) -> Iterator[Document]:
    document: Document = []
    characters = 0
    for line in lines:
        if document and (not line or characters > LONGEST_DOCUMENT):
            yield document
            document, characters = [], 0
        if line:
            document.append(line)
            characters += len(line)
    if document:
        yield document


def python_docs() -> Iterator[Document]:
    """The language reference of `pydoc_data.topics` and the docstrings of the standard library's modules, as prose."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InputError("corpus.source python-docs: this Python comes without pydoc_data; give text files") from None
    for name in sorted(topics):
        yield from _nonempty(_prose(topics[name]))
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "__pycache__"}
    for file in sorted(root.rglob("*.py")):
        if not skipped.intersection(file.relative_to(root).parts):
            yield from _nonempty([p for text in _docstrings(file) for p in _prose(text)])


def _nonempty(document: Document) -> Iterator[Document]:
    if document:
        yield document


def _docstrings(file: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, from its source: nothing is imported."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # Not for this Python: some files hold code for tools of other versions.
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield inspect.cleandoc(docstring)


def _prose(text: str) -> Document:
    """The paragraphs of reStructuredText-like documentation, each on one line, without code, tables and underlines."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.expandtabs()):
        lines = [line.strip() for line in block.splitlines() if re.search(r"\w", line)]
        paragraph = " ".join(lines)
        words = re.findall(r"[A-Za-z]{2,}", paragraph)
        # Sentences have spaces between most of their words; code and tables of signs don't.
        if len(words) >= 4 and ">>>" not in paragraph and "::=" not in paragraph:
            paragraphs.append(paragraph)
    return paragraphs
