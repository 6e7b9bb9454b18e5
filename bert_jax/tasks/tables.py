"""Reading tables, CSV and its relatives and JSON: rows that know where they stand."""

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
from bert_jax.tasks.files import plain_name, read_text

JSON_NAMES = (".json", ".jsonl", ".ndjson")
# Separators of columns beside tabs.
SEPARATORS = ",;|"
QUOTED = r'"(?:[^"]|"")*+"'
# A text all of whose quotes stand around cells, or doubled within.
QUOTED_CELLS = re.compile(rf'(?:(?:{QUOTED}|[^"\t\n]*+)(?:[\t\n]|\Z))*+')
# A cell in quotes, between tabs or line ends.
A_QUOTED_CELL = re.compile(rf"(?:^|(?<=[\t\n]))({QUOTED})(?=[\t\r\n]|\Z)")
# What stands in each cell of a line of dashes.
RULE = re.compile(r"\s*(:?-{2,}:?|:-+:?|-+:|=+)?\s*")

Record = tuple[int, list[str]]


@dataclass(frozen=True)
class Row:
    """A record by its columns' names; `place` says where it is, as "dev.tsv, line 7"."""

    place: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Data in memory in the place of a split's file, with the split's name in errors (`bert_jax.tasks.memory`)."""

    name: str
    rows: list[Row]

    def __str__(self) -> str:
        return self.name


# Splits in memory, by their names.
Tables = Mapping[str, Table]
NO_TABLES: Tables = MappingProxyType({})


def read_table(file: str | Path | Table, header: bool = True, ragged: bool = False, width: int = 1) -> list[Row]:
    """The rows of a table in memory; or of a UTF-8 file, plain or compressed, whatever its name says: JSON, an object a
    line or a list of them; else columns between tabs, commas, semicolons or vertical bars, with quotes as CSV has them.

    Without a header, columns are called by their numbers from "1", and there are at least `width`. Between tabs, quotes
    are but characters, unless all are as CSV's writers set them. Where `ragged`, columns are between tabs, a short row
    lacks its last ones, what is beyond the header's is dropped, and quotes are characters always: GLUE's files. Blank
    lines are left out; of a single column each is an empty text. Raises `InputError` with file and line.
    """
    if isinstance(file, Table):
        return file.rows
    file = Path(file)
    text = read_text(file)
    if re.match("sep=.\r?\n", text):
        raise InputError(f"{file}, line 1: is for Excel alone, not the columns' names; take the line out")
    if _is_json(file, text):
        rows = list(_json_rows(file, text))
    else:
        rows = list(_named(file, _records(file, text, header, ragged, width), header, ragged))
    if not rows:
        raise InputError(f"{file}: holds no rows")
    return rows


def check_ids(rows: list[Row], column: str | None) -> None:
    """Raises `InputError` where two rows have the same value in a column that tells them apart."""
    if not column:
        return
    places: dict[str, str] = {}
    for row in rows:
        value = str(row.values.get(column))
        if value in places:
            twice = f"{column} is {value!r}, as at {places[value]}; it must tell rows apart"
            raise InputError(f"{row.place}: {twice}: correct it, or leave out --task.id-column")
        places[value] = row.place


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
    """The lines' cells, with the lines' numbers."""
    separator = "\t" if ragged and plain_name(file).suffix != ".csv" else _separator(file, text, header, width)
    if separator != "\t":
        return _csv_lines(file, text, separator)
    if ragged or not _is_quoted(text):
        return _tsv_lines(text)
    print(f"{file}: cells in quotes are read as CSV has them, without the quotes", file=sys.stderr)
    return _csv_lines(file, text, separator)


def _separator(file: Path, text: str, header: bool, width: int) -> str:
    """What stands between columns: tabs, where the first line has one; else what the header has most of; else, without
    one, what parts all lines alike, in `width` or more columns."""
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
    """Whether the quotes of a table of tabs are those of a CSV writer: all around cells or doubled within, and around
    all of the header's cells, or only those that need them. (Excel finds that a comma does.)"""
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
        place = f"{file}, line {number}"
        if _is_blank(cells):
            if len(columns) > 1:
                continue
            cells = cells or [""]
        if len(cells) != len(columns) and not ragged:
            widths = f"has {len(cells)} columns, the first line has {len(columns)}"
            raise InputError(f"{place}: {widths}; a text that holds a separator stands in quotes, in a .csv")
        if _folded(cells[0]) in names and sorted(map(_folded, cells)) == names:
            raise InputError(f"{place}: is the header again, as where files were joined; take the line out")
        if len(columns) > 1 and "".join(cells).strip() and all(map(RULE.fullmatch, cells)):
            raise InputError(f"{place}: is a rule under a header, as in Markdown, and no row; take the line out")
        yield Row(place, dict(zip(columns, cells, strict=False)))


def _is_blank(cells: list[str]) -> bool:
    return len(cells) < 2 and not "".join(cells).strip()


def _folded(name: str) -> str:
    """The same for a column's name however it is written, behind a byte order mark too."""
    return name.lstrip("\ufeff").strip().lower()


def _tsv_lines(text: str) -> Iterator[Record]:
    # Not splitlines(), which also takes other characters for a line's end.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield number, line.removesuffix("\r").split("\t")


def _csv_lines(file: Path, text: str, separator: str) -> Iterator[Record]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # A long text is a text all the same.
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
    """Those of a list of objects, or an object a line."""
    if text.lstrip().startswith("["):
        values = _json(text, str(file))
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise InputError(f'{file}, line 1: not an object, as {{"text": "...", "label": "..."}}, nor a list of them')
        yield from (Row(f"{file}, record {number}", one) for number, one in enumerate(values, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        values = _json(line, place)
        if not isinstance(values, dict):
            raise InputError(f'{place}: not an object, as {{"text": "...", "label": "..."}}')
        yield Row(place, values)


def _json(text: str, place: str) -> Any:
    try:
        return json_value(text, nan=True, pairs=_object)
    except ValueError as error:
        why = f"not JSON that is read ({first_line(error)})"
        raise InputError(f"{place}: {why}; correct it: an object a line, or all in one list") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"a name comes twice in an object: {', '.join(name for name, _ in pairs)}")
    return values
