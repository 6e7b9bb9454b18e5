"""Reads tables (CSV, TSV and the like, JSON) as rows that know their location."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bert_jax.config import InputError, first_line
from bert_jax.files.contents import json_value
from bert_jax.files.printable import say
from bert_jax.tasks.files import plain_name, read_text

JSON_NAMES = (".json", ".jsonl", ".ndjson")
# Separators of columns besides tabs.
SEPARATORS = ",;|"
QUOTED = r'"(?:[^"]|"")*+"'
# A text in which all quotes are around cells, or doubled within them.
QUOTED_CELLS = re.compile(rf'(?:(?:{QUOTED}|[^"\t\n]*+)(?:[\t\n]|\Z))*+')
# A cell in quotes, between tabs or line ends.
A_QUOTED_CELL = re.compile(rf"(?:^|(?<=[\t\n]))({QUOTED})(?=[\t\r\n]|\Z)")
# A cell in a line of dashes.
RULE = re.compile(r"\s*(:?-{2,}:?|:-+:?|-+:|=+)?\s*")

Record = tuple[int, list[str]]


@dataclass(frozen=True)
class Row:
    """A record by its columns' names; `location` is for example "dev.tsv, line 7"."""

    location: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Data in memory instead of a split's file, with the split's name for errors (`bert_jax.tasks.memory`)."""

    name: str
    rows: list[Row]

    def __str__(self) -> str:
        return self.name


# Splits in memory, by their names.
Tables = Mapping[str, Table]
NO_TABLES: Tables = MappingProxyType({})


def read_table(file: str | Path | Table, header: bool = True, ragged: bool = False, width: int = 1) -> list[Row]:
    """The rows of a table in memory, or of a UTF-8 file, plain or compressed, whatever its name.

    A file is JSON (an object on each line, or a list of objects), or columns separated by tabs, commas, semicolons or
    vertical bars, quoted as in CSV. Without a header, columns are named by their numbers from "1", and there are at
    least `width`. In a table with tabs, quotes are ordinary characters, unless all of them are as in CSV. `ragged` is
    for GLUE's files: columns are separated by tabs, a short row lacks its last columns, cells beyond the header are
    dropped, and quotes are always ordinary characters. Blank lines are left out; in a table with one column, each is an
    empty text. Raises `InputError` with file and line.
    """
    if isinstance(file, Table):
        return file.rows
    file = Path(file)
    text = read_text(file)
    if re.match("sep=.\r?\n", text):
        raise InputError(f"{file}, line 1: is only for Excel, not the columns' names; take the line out")
    if _is_json(file, text):
        rows = list(_json_rows(file, text))
    else:
        rows = list(_named(file, _records(file, text, header, ragged, width), header, ragged))
    if not rows:
        raise InputError(f"{file}: holds no rows")
    return rows


def check_ids(rows: list[Row], column: str | None) -> None:
    """Raises `InputError` where two rows have the same value in a column of ids."""
    if not column:
        return
    locations: dict[str, str] = {}
    for row in rows:
        value = str(row.values.get(column))
        if value in locations:
            twice = f"{column} is {value!r}, as at {locations[value]}; it must tell rows apart"
            raise InputError(f"{row.location}: {twice}: correct it, or leave out --task.id-column")
        locations[value] = row.location


def _is_json(file: Path, text: str) -> bool:
    if plain_name(file).suffix in JSON_NAMES:
        return True
    start = text.lstrip()
    if re.match(r'\[\s*\{\s*"', start):
        return True
    try:
        return isinstance(json_value(start.partition("\n")[0], halves=True, nan=True), dict)
    except ValueError:
        return False


def _records(file: Path, text: str, header: bool, ragged: bool, width: int) -> Iterator[Record]:
    """(line number, cells) of each line."""
    separator = "\t" if ragged and plain_name(file).suffix != ".csv" else _separator(file, text, header, width)
    if separator != "\t":
        return _csv_lines(file, text, separator)
    if ragged or not _is_quoted(text):
        return _tsv_lines(text)
    say(f"{file}: cells in quotes are read as CSV has them, without the quotes", file=sys.stderr)
    return _csv_lines(file, text, separator)


def _separator(file: Path, text: str, header: bool, width: int) -> str:
    """The separator of columns: a tab, if the first line has one; else the most frequent one in the header; without a
    header, the one that splits all lines into the same number of columns, at least `width`."""
    first = text.lstrip("\r\n").partition("\n")[0]
    if "\t" in first:
        return "\t"
    own = "," if plain_name(file).suffix == ".csv" else "\t"
    if header:
        bare = re.sub(QUOTED, "", first)
        most = max(SEPARATORS, key=bare.count)
        return most if most in bare else own
    for separator in dict.fromkeys((own, *SEPARATORS)):
        try:
            counts = {len(cells) for _, cells in _csv_lines(file, text, separator) if cells}
        except InputError:
            continue
        if len(counts) == 1 and counts.pop() >= max(width, 2):
            return separator
    return own


def _is_quoted(text: str) -> bool:
    """Whether the quotes in a table with tabs are a CSV writer's: all are around cells or doubled within, and either
    all cells of the header are quoted, or only cells that need it. (For Excel, a cell with a comma needs it.)"""
    text = text.replace("\r\n", "\n")
    if '"' not in text or not QUOTED_CELLS.fullmatch(text):
        return False
    header = text.lstrip("\n").partition("\n")[0].split("\t")
    if len(header) > 1 and all(re.fullmatch(QUOTED, cell) for cell in header):
        return True
    return all(re.search(r'[\t\n,]|""', cell[1:-1]) for cell in A_QUOTED_CELL.findall(text))


def _named(file: Path, records: Iterator[Record], header: bool, ragged: bool) -> Iterator[Row]:
    lines = list(records)
    first = next((i for i, (_, cells) in enumerate(lines) if not _is_blank(cells)), len(lines))
    if first == len(lines):
        return
    number, cells = lines[first]
    columns = [cell.strip() for cell in cells] if header else [str(i + 1) for i in range(len(cells))]
    if twice := next((name for name in columns if name and columns.count(name) > 1), None):
        raise InputError(f"{file}, line {number}: two columns are called {twice!r}; give each a name of its own")
    names = sorted(map(_folded, columns)) if header and len(columns) > 1 else []
    for number, cells in lines[first + 1 :] if header else lines:
        location = f"{file}, line {number}"
        if _is_blank(cells):
            if len(columns) > 1:
                continue
            cells = cells or [""]
        if len(cells) != len(columns) and not ragged:
            widths = f"has {len(cells)} columns, the first line has {len(columns)}"
            raise InputError(f"{location}: {widths}; a text that contains a separator must be in quotes, in a .csv")
        if _folded(cells[0]) in names and sorted(map(_folded, cells)) == names:
            raise InputError(f"{location}: is the header again, as where files were joined; take the line out")
        if len(columns) > 1 and "".join(cells).strip() and all(map(RULE.fullmatch, cells)):
            raise InputError(f"{location}: is a rule under a header, as in Markdown, and no row; take the line out")
        yield Row(location, dict(zip(columns, cells, strict=False)))


def _is_blank(cells: list[str]) -> bool:
    return len(cells) < 2 and not "".join(cells).strip()


def _folded(name: str) -> str:
    """A column's name without a byte order mark, spaces and case, for comparison."""
    return name.lstrip("\ufeff").strip().lower()


def _tsv_lines(text: str) -> Iterator[Record]:
    # Not splitlines(), which also splits at other characters.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield number, line.removesuffix("\r").split("\t")


def _csv_lines(file: Path, text: str, separator: str) -> Iterator[Record]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # By default, a long text is an error.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{file}, line {number}: not CSV ({error}); is a quote not closed or not doubled?"
            ) from None
        yield number, cells


def _json_rows(file: Path, text: str) -> Iterator[Row]:
    """The rows of a JSON list of objects, or of an object on each line."""
    if text.lstrip().startswith("["):
        values = _json(text, str(file))
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise InputError(f'{file}, line 1: not an object, as {{"text": "...", "label": "..."}}, nor a list of them')
        yield from (Row(f"{file}, record {number}", value) for number, value in enumerate(values, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        location = f"{file}, line {number}"
        values = _json(line, location)
        if not isinstance(values, dict):
            raise InputError(f'{location}: not an object, as {{"text": "...", "label": "..."}}')
        yield Row(location, values)


def _json(text: str, location: str) -> Any:
    try:
        return json_value(text, nan=True, pairs=_object)
    except ValueError as error:
        why = f"not JSON that is read ({first_line(error)})"
        raise InputError(f"{location}: {why}; correct it: an object on each line, or all in one list") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"a name comes twice in an object: {', '.join(name for name, _ in pairs)}")
    return values
