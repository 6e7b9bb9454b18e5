"""Formats of text files: where each may be cut, so that processes share a file, and how lines become documents."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bert_jax.files.contents import json_value

Document = list[str]

# Longer documents are split: so memory is bounded where a corpus has no blank lines, and a chunk has several documents
# to draw random next sentences from.
LONGEST_DOCUMENT = 1 << 16  # characters
LONGEST_LINE = 1 << 20  # characters
# How far plain text is searched for a blank line, a line's end or a space to cut it at.
CUT_WITHIN = 1 << 16

_SURROGATES = re.compile("[\ud800-\udfff]")


class BadLine(Exception):
    """The problem with the line that was read last, and the remedy."""


def divided(lines: Iterable[str]) -> Iterator[Document]:
    """The documents in lines of text, split at blank lines and where they are too long."""
    document: Document = []
    characters = 0
    for line in map(str.strip, lines):
        if document and (not line or characters > LONGEST_DOCUMENT):
            yield document
            document, characters = [], 0
        if line:
            document.append(line)
            characters += len(line)
    if document:
        yield document


@dataclass(frozen=True)
class PlainText:
    """A paragraph or sentence on each line, and a blank line between documents."""

    longest_line = LONGEST_LINE
    """Longer lines may be read in parts (-1: none may)."""

    def cut(self, stream: BinaryIO, at: int) -> int:
        """The byte at or after `at` where a file is cut: after a blank line, or else a line, a space or a character."""
        if at == 0:
            return 0
        stream.seek(at)
        window = stream.read(CUT_WITHIN)
        for pattern in (rb"\n\s*\n", rb"\n", rb"\s"):
            if end := re.search(pattern, window):
                return at + end.end()
            if len(window) < CUT_WITHIN:  # The file's last document.
                return at + len(window)
        return at + len(window) - len(window.lstrip(bytes(range(0x80, 0xC0))))

    def documents(self, lines: Iterable[str]) -> Iterator[Document]:
        """The documents of the lines between two cuts. Raises `BadLine`."""
        return divided(lines)


@dataclass(frozen=True)
class JsonLines:
    """A JSON object on each line, as in C4, OSCAR and the Pile; the text in its `field` is a document."""

    field: str
    longest_line = -1

    def cut(self, stream: BinaryIO, at: int) -> int:
        return _next_line(stream, at)

    def documents(self, lines: Iterable[str]) -> Iterator[Document]:
        for line in lines:
            if line.strip():
                yield from divided(filter(str.strip, self._text(line).split("\n")))

    def _text(self, line: str) -> str:
        try:
            record = json_value(line, halves=True, nan=True)  # Halves of surrogate pairs are replaced below.
        except ValueError as error:
            raise BadLine(f"not JSON ({error}); correct the line or take it out") from None
        if not isinstance(record, dict):
            raise BadLine("not a JSON object, as the first line is; correct the line or take it out")
        text = record.get(self.field, self)
        if text is self or not isinstance(text, str | None):
            what = "no" if text is self else f"{text!r:.40} for"
            texts = ", ".join(name for name, value in record.items() if isinstance(value, str))
            hint = f"--corpus.text-field is one of {texts}" if texts else "it has no text at all"
            raise BadLine(f"has {what} field {self.field!r}; {hint}")
        # JSON can hold half a surrogate pair, which isn't a character: it becomes U+FFFD, the mark of broken text.
        return _SURROGATES.sub("\ufffd", text or "")


@dataclass(frozen=True)
class Articles:
    """WikiExtractor's format: articles between <doc ...> and </doc>, with blank lines; the first line is the title."""

    BEGIN = "<doc id="
    longest_line = LONGEST_LINE

    def cut(self, stream: BinaryIO, at: int) -> int:
        at = _next_line(stream, at)
        while at and (line := stream.readline()) and not line.startswith(self.BEGIN.encode()):
            at = stream.tell()
        return at

    def documents(self, lines: Iterable[str]) -> Iterator[Document]:
        article: Document = []
        for line in map(str.strip, lines):
            if line.startswith(self.BEGIN) or line == "</doc>":
                yield from divided(article)
                article = []
            elif line:
                article.append(line)
        yield from divided(article)


Format = PlainText | JsonLines | Articles


def _next_line(stream: BinaryIO, at: int) -> int:
    """The byte at or after `at` where a line begins; the stream's position is then there."""
    if at == 0:
        return 0
    stream.seek(at - 1)
    stream.readline()
    return stream.tell()
