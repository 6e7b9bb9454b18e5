"""Corpora: the embedded documentation, text files, or a TFDS text data set, as chunks of documents.

A document is a list of lines that aren't blank; a line is a paragraph or a sentence. A chunk of plain files only says
where its text lies, and is read by the process that works on it. Other sources come in pieces (a compressed file, a
shard of a data set), each to be read from its start, and are chunks once they are read.
"""

import hashlib
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import TypeVar

from bert_jax.config import CorpusConfig
from bert_jax.data.formats import Document
from bert_jax.data.python_docs import python_docs
from bert_jax.data.text_files import Part, TextFile, text_files

CHUNK_BYTES = 1 << 20

Sized = TypeVar("Sized", Part, TextFile)


@dataclass(frozen=True)
class Chunk:
    """About `CHUNK_BYTES` of text: parts of plain files, or documents read already. `source` is the corpus's name."""

    source: str
    parts: tuple[Part, ...] = ()
    read: tuple[Document, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in the files, or characters of the documents."""
        return sum(part.size for part in self.parts) + sum(len(line) for d in self.read for line in d)

    def documents(self, clean: bool) -> Iterator[Document]:
        """Its documents, cleaned or as they stand. Raises `InputError` naming the file and line."""
        for document in self.read or chain.from_iterable(part.documents() for part in self.parts):
            lines = [line for line in map(clean_line, document) if line] if clean else document
            if lines:
                yield lines

    def digest(self) -> bytes:
        """Equal only for chunks of the same text, wherever it lies."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            digest.update(part.digest())
        for document in self.read:
            digest.update("\n".join([*document, "\n"]).encode())
        return digest.digest()


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
        for pattern, files in text_files(config.files, config.text_field).items():
            yield from _text_pieces(pattern, files)
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
        files = text_files(config.files, config.text_field)
        return {pattern: sum(file.size for file in matches) for pattern, matches in files.items()}
    if config.source == "tfds":
        from bert_jax.data.tfds_corpus import tfds_size

        return {config.dataset: tfds_size(config)}
    return {"python-docs": 2 * CHUNK_BYTES}


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


def _text_pieces(pattern: str, files: list[TextFile]) -> Iterator[Chunk | Piece]:
    """Large plain files are cut, small ones share a chunk; compressed ones share a piece as far as they are small."""
    for compressed, neighbours in groupby(files, key=lambda file: file.compressed):
        if compressed:
            yield from (Piece(pattern, partial(_documents, together)) for together in _filled(neighbours))
        else:
            parts = (part for file in neighbours for part in _parts(file))
            yield from (Chunk(pattern, together) for together in _filled(parts))


def _parts(file: TextFile) -> Iterator[Part]:
    for start in range(0, file.size, CHUNK_BYTES):
        yield Part(str(file.path), start, min(start + CHUNK_BYTES, file.size), file.format)


def _filled(items: Iterable[Sized]) -> Iterator[tuple[Sized, ...]]:
    """Neighbours together, up to `CHUNK_BYTES`: a next sentence from another document needs one in the chunk."""
    together: list[Sized] = []
    room = CHUNK_BYTES
    for item in items:
        if item.size > room and together:
            yield tuple(together)
            together, room = [], CHUNK_BYTES
        together.append(item)
        room -= item.size
    if together:
        yield tuple(together)


def _documents(files: tuple[TextFile, ...]) -> Iterator[Document]:
    return chain.from_iterable(file.documents() for file in files)


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
