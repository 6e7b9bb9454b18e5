"""Corpora: the embedded documentation, text files, or a TFDS text data set, as chunks of documents.

A document is a list of lines that aren't blank; a line is a paragraph or a sentence. A chunk of plain files only says
where its text lies; the process that works on it reads it. Other sources come in pieces (a compressed file, a shard of
a data set), which can only be read from their start, and become chunks while they are read.
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
    """About `CHUNK_BYTES` of text: parts of plain files, or documents already read. `source` is the corpus's name."""

    source: str
    parts: tuple[Part, ...] = ()
    read: tuple[Document, ...] = ()

    @property
    def size(self) -> int:
        """Number of bytes in the files, or of characters in the documents."""
        return sum(part.size for part in self.parts) + sum(len(line) for d in self.read for line in d)

    def documents(self, clean: bool) -> Iterator[Document]:
        """The chunk's documents, cleaned or unchanged. Raises `InputError` naming the file and line."""
        for document in self.read or chain.from_iterable(part.documents() for part in self.parts):
            lines = [line for line in map(clean_line, document) if line] if clean else document
            if lines:
                yield lines

    def digest(self) -> bytes:
        """A hash that is equal only for chunks of the same text, wherever its files lie."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            digest.update(part.digest())
        for document in self.read:
            digest.update("\n".join([*document, "\n"]).encode())
        return digest.digest()


@dataclass(frozen=True)
class Piece:
    """A source that must be read from its start: a compressed file, a shard of a data set, the documentation."""

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
    """The corpus in pieces or, where it is plain files, chunks; any process can read each alone."""
    if config.source == "text":
        for pattern, files in text_files(config.files, config.text_field).items():
            yield from _text_pieces(pattern, files)
    elif config.source == "tfds":
        # Imported only here, because it imports TensorFlow.
        from bert_jax.data.tfds_corpus import tfds_documents, tfds_shards

        for split in tfds_shards(config):
            yield Piece(config.dataset, partial(tfds_documents, config, split))
    else:
        yield Piece("python-docs", python_docs)


def chunks_of(piece: Chunk | Piece) -> Iterator[Chunk]:
    """The chunks of a piece; a chunk itself if it is one already."""
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


def hash_fraction(document: Document) -> float:
    """A number in [0, 1), a hash of the document's content."""
    digest = hashlib.blake2b("\n".join(document).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def is_held_out(document: Document, share: float) -> bool:
    """Whether a document belongs to the held-out split: its content decides, so that copies are in the same split."""
    return hash_fraction(document) < share


# Characters that no tokenizer keeps: control characters that aren't white space, and U+FFFD, the mark of broken text.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffd]")


def clean_line(line: str) -> str:
    """The line with HTML entities resolved, control characters dropped and Unicode composed (NFC), which released
    vocabularies expect."""
    if "&" in line:
        line = html.unescape(line)
    if not line.isascii() or not line.isprintable():
        line = unicodedata.normalize("NFC", _CONTROL.sub("", line))
    return line.strip()


def _text_pieces(pattern: str, files: list[TextFile]) -> Iterator[Chunk | Piece]:
    """Chunks of plain files, where large files are cut and small ones share a chunk; pieces of compressed files, where
    small ones share a piece."""
    for compressed, neighbours in groupby(files, key=lambda file: file.compressed):
        if compressed:
            yield from (Piece(pattern, partial(_documents, group)) for group in _filled(neighbours))
        else:
            parts = (part for file in neighbours for part in _parts(file))
            yield from (Chunk(pattern, group) for group in _filled(parts))


def _parts(file: TextFile) -> Iterator[Part]:
    for start in range(0, file.size, CHUNK_BYTES):
        yield Part(str(file.path), start, min(start + CHUNK_BYTES, file.size), file.format)


def _filled(items: Iterable[Sized]) -> Iterator[tuple[Sized, ...]]:
    """Groups of neighbours of up to `CHUNK_BYTES`: a random next sentence needs another document in the same chunk."""
    group: list[Sized] = []
    room = CHUNK_BYTES
    for item in items:
        if item.size > room and group:
            yield tuple(group)
            group, room = [], CHUNK_BYTES
        group.append(item)
        room -= item.size
    if group:
        yield tuple(group)


def _documents(files: tuple[TextFile, ...]) -> Iterator[Document]:
    return chain.from_iterable(file.documents() for file in files)


def read_chunks(source: str, documents: Iterable[Document]) -> Iterator[Chunk]:
    """The documents, in their order, in chunks."""
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
