"""Reading CSV, TSV and JSONL files: rows that know where they stand."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.config import InputError, first_line
from bert_jax.data.encodings import not_utf8


@dataclass(frozen=True)
class Row:
    """A record by its columns' names; `place` says where it is, as "dev.tsv, line 7"."""

    place: str
    values: dict[str, Any]


def read_table(file: str | Path, header: bool = True, ragged: bool = False) -> list[Row]:
    """The rows of a UTF-8 file by its suffix: .csv, quoted as CSV is; .tsv and .txt, tabs between columns and quotes
    that are but characters; .jsonl, an object a line. Blank lines are left out.

    Without a header, columns are called by their numbers from "1". Where `ragged`, a short row lacks its last columns,
    and what is beyond the header's is dropped. Raises `InputError` with file and line.
    """
    file = Path(file)
    kinds = {".csv": _csv_lines, ".tsv": _tsv_lines, ".txt": _tsv_lines, ".jsonl": _json_lines}
    if file.suffix not in kinds:
        raise InputError(f"{file}: a table's name ends in {', '.join(kinds)}")
    lines = kinds[file.suffix](file, _text(file))
    rows = list(lines) if file.suffix == ".jsonl" else list(_named(file, lines, header, ragged))
    if not rows:
        raise InputError(f"{file}: holds no rows")
    return rows


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def _named(file: Path, lines: Iterator[tuple[int, list[str]]], header: bool, ragged: bool) -> Iterator[Row]:
    columns: list[str] = []
    for number, fields in lines:
        place = f"{file}, line {number}"
        if not columns:
            columns = fields if header else [str(i + 1) for i in range(len(fields))]
            if twice := next((name for name in columns if columns.count(name) > 1), None):
                raise InputError(f"{place}: two columns are called {twice!r}")
            if header:
                continue
        if len(fields) != len(columns) and not ragged:
            widths = f"has {len(fields)} columns, the first line has {len(columns)}"
            raise InputError(f"{place}: {widths}; a text that holds a separator stands in quotes, in a .csv")
        yield Row(place, dict(zip(columns, fields, strict=False)))


def _tsv_lines(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    # Not splitlines(), which also takes other characters for a line's end.
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.removesuffix("\r"):
            yield number, line.split("\t")


def _csv_lines(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # A long text is a text all the same.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{file}, line {number}: not CSV ({error}); is a quote not closed or not doubled?"
            ) from None
        if fields:
            yield number, fields


def _json_lines(file: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            values = json.loads(line)
            # JSON may escape half of a surrogate pair, which no tokenizer takes.
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise InputError(f"{place}: has {half}, half a character; write it whole") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: not JSON, or too deep ({first_line(error)}); correct it") from None
        if not isinstance(values, dict):
            raise InputError(f'{place}: not an object, as {{"text": "...", "label": "..."}}')
        yield Row(place, values)
