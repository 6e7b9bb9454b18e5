"""Files of columns, with a token on each line and a blank line between sentences: CoNLL-2003, WNUT-17, and your own."""

import re
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.files import storage
from bert_jax.tasks.files import read_text
from bert_jax.tasks.spans import tag_every_word, unmarked
from bert_jax.tasks.tables import Row, Table

START_OF_DOCUMENT = "-DOCSTART-"
OTHER_SEPARATOR = re.compile(r".*[,;|](O|[BIES]-.+)")


@dataclass(frozen=True, eq=False)
class Sentence:
    """A sentence: its lines' columns as in the file; from a table in memory, its tokens and, if any, their tags."""

    rows: list[list[str]]
    file: Path | Table
    lines: list[int]
    """The line number of each row, from 1."""
    separator: str = "\t"
    location: str = ""
    """The location of a sentence from a table in memory."""

    def column(self, index: int) -> list[str]:
        return [row[index] for row in self.rows]

    def where(self, row: int = 0) -> str:
        return self.location or f"{self.file}, line {self.lines[row]}"

    def tags(self) -> list[str]:
        """The last column, if it isn't the tokens'; empty in a file without tags, and where a document starts."""
        return [] if self.starts_document or len(self.rows[0]) < 2 else self.column(-1)

    @property
    def starts_document(self) -> bool:
        return self.rows[0][0] == START_OF_DOCUMENT


def read_sentences(file: Path, comment: str | None = None) -> list[Sentence]:
    """The sentences of a file, plain or compressed, without lines that begin with `comment`.

    -DOCSTART- is a sentence by itself. Columns are separated by tabs if the first line with a token has one, else by
    spaces. In a file with tabs, a line without tabs that begins with "# " is a comment (as in CoNLL-U). Raises
    `InputError` naming the file (and line) where it can't be read or holds no sentence.
    """
    lines = [line.rstrip("\r") for line in read_text(file).split("\n")]
    if re.match(r'\[?\s*\{\s*"', lines[0]):
        raise InputError(f"{file}, line 1: is JSON; write a token and its tag on each line, with a tab between them")
    others = ("# ", START_OF_DOCUMENT)
    tabs = "\t" in next((line for line in lines if line.strip() and not line.startswith(others)), "")
    sentences: list[Sentence] = []
    rows: list[list[str]] = []
    numbers: list[int] = []

    def end() -> None:
        if rows:
            sentences.append(Sentence(rows.copy(), file, numbers.copy(), "\t" if tabs else " "))
        rows.clear()
        numbers.clear()

    for number, line in enumerate(lines, 1):
        if (comment and line.startswith(comment)) or (tabs and line.startswith("# ") and "\t" not in line):
            continue
        starts_document = line.startswith(START_OF_DOCUMENT)
        if starts_document or not line.strip():
            end()
        if line.strip():
            # Not str.split(), which would end a token at other white space, such as no-break spaces.
            rows.append(line.split("\t") if tabs else re.split("[ \t]+", line.strip(" \t")))
            numbers.append(number)
        if starts_document:
            end()
    end()
    if all(sentence.starts_document for sentence in sentences):
        raise InputError(f"{file}: holds no sentence; a line is a token and its columns, a blank line ends a sentence")
    return sentences


def read_tagged(file: Path | Table, labelled: bool) -> list[Sentence]:
    """Sentences whose first column is the token and whose last is its tag; tags may be missing if not `labelled`.

    A table in memory has a sentence in each row, with lists of strings in the columns `tokens` and `tags`.

    Tags mark spans (`spans.standard`) or, in a file with two columns, describe every word, like parts of speech. Raises
    `InputError` naming the file and line where columns are missing, or a tag does neither.
    """
    sentences = _from_table(file, labelled) if isinstance(file, Table) else read_sentences(file)
    first = next(sentence for sentence in sentences if not sentence.starts_document)
    count = len(first.rows[0])
    if count < 2 and all(OTHER_SEPARATOR.fullmatch(row[0]) for row in first.rows):
        how = "a token and its tag are one column; separate them by a tab or a space, not a comma, semicolon or bar"
        raise InputError(f"{first.where()}: {how}")
    if labelled and count < 2:
        raise InputError(f"{first.where()}: has a token and no tag; the tag is the last column")
    for sentence in sentences:
        for i, row in enumerate([] if sentence.starts_document else sentence.rows):
            if len(row) != count:
                by = "tabs" if sentence.separator == "\t" else "spaces"
                columns = f"columns separated by {by}: {len(row)}, but {count} in the file's first line"
                raise InputError(f"{sentence.where(i)}: {columns}; give each line the same")
    tags = {tag for sentence in sentences for tag in sentence.tags()}
    wrong = set() if count == 2 and tag_every_word(tags) else unmarked(tags)
    for sentence in sentences if wrong else []:
        for i, tag in enumerate(sentence.tags()):
            if tag in wrong:
                kinds = "neither O nor B-, I-, E- or S- with a type after it, as B-PER"
                remedy = "write B- before it where a span begins, and I- where one goes on"
                raise InputError(f"{sentence.where(i)}: the last column's tag {tag!r} is {kinds}; {remedy}")
    return sentences


def _from_table(table: Table, labelled: bool) -> list[Sentence]:
    with_tags = labelled or table.rows[0].values.get("tags") is not None
    return [_from_row(table, row, with_tags) for row in table.rows]


def _from_row(table: Table, row: Row, with_tags: bool) -> Sentence:
    cells = {}
    for name in ("tokens", "tags") if with_tags else ("tokens",):
        if name not in row.values:
            raise InputError(
                f"{row.location}: has no {name!r}, only {', '.join(row.values)}; rename the column that has them"
            )
        cells[name] = row.values[name]
        if not isinstance(cells[name], list) or not all(isinstance(cell, str) for cell in cells[name]):
            raise InputError(f"{row.location}: {name} is {cells[name]!r:.60}, must be a list of strings")
    if not cells["tokens"]:
        raise InputError(f"{row.location}: tokens is empty; leave the row out")
    if len({len(column) for column in cells.values()}) > 1:
        counts = f"has {len(cells['tokens'])} tokens and {len(cells['tags'])} tags"
        raise InputError(f"{row.location}: {counts}; give each token one")
    rows = [list(row) for row in zip(*cells.values(), strict=True)]
    return Sentence(rows, table, [], location=row.location)


def check_shape(sentence: Sentence, least: int) -> None:
    """Raises `InputError` where the sentence's lines differ in their number of columns, or have too few."""
    count = len(sentence.rows[0])
    for i, row in enumerate(sentence.rows):
        if len(row) != count or count < least:
            expected = (
                f"{count} in its sentence's first line" if len(row) != count else f"there must be {least} or more"
            )
            raise InputError(f"{sentence.where(i)}: columns: {len(row)}, but {expected}; correct the line")


def write_sentences(file: Path, sentences: list[Sentence]) -> Path:
    # A token in memory may contain characters that end a column or a line.
    lines = ([s.separator.join(re.sub("[\t\r\n]", " ", cell) for cell in row) for row in s.rows] for s in sentences)
    text = "".join("".join(f"{line}\n" for line in sentence) + "\n" for sentence in lines)
    storage.make_folder(file.parent)
    storage.write_whole(file, text.encode())
    return file
