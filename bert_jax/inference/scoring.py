"""`bert-jax predict classify --columns`: a table with what a classifier says of each row."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from bert_jax.config import InputError
from bert_jax.config.checks import did_you_mean
from bert_jax.convert.pretrained import overflowed
from bert_jax.devices import compiling
from bert_jax.files.printable import json_line
from bert_jax.inference.bert import Bert
from bert_jax.inference.labelling import Classified
from bert_jax.inference.prediction import chunks, warnings_in_one_line, written
from bert_jax.tasks.classification import text_of
from bert_jax.tasks.tables import JSON_NAMES, Row, read_table

# The columns that are added; with several values for a text, the first one once for each of them, before its name.
PREDICTED, PROBABILITY = "predicted", "probability"
# Spreadsheets take a cell that begins with one of these for a formula, and a label is whatever the model's folder says.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read(file: Path, columns: Sequence[str]) -> tuple[list[Row], list[tuple[str, ...]]]:
    """The rows of a table, and the text, or the two texts, of each. Raises `InputError` with the file and line."""
    if len(columns) > 2:
        raise InputError(f"--columns: are {len(columns)}; name that of the text, or those of the two texts of a pair")
    rows = read_table(file)
    for column in columns:
        if column not in (names := rows[0].values):
            raise InputError(f"{file}: has no column {column!r}, named by --columns; {did_you_mean(column, names)}")
    for name in {name for row in rows for name in row.values}:
        if name in (PREDICTED, PROBABILITY) or name.startswith(f"{PREDICTED} "):
            raise InputError(f"{file}: has a column {name!r}, as the results would be called; rename it")
    return rows, [tuple(text_of(row, column, test=True) for column in columns) for row in rows]


def run(bert: Bert, rows: list[Row], texts: list[tuple[str, ...]], output: Path | None, pair: str | None) -> None:
    """Writes the rows with their results to a file, which is there when it is whole, or to standard output.

    A name that ends in .jsonl (or .json, .ndjson) gets JSON lines, .tsv tabs, any other name, and standard output, CSV.
    `pair` is the second text of all rows that have one text.
    """
    found: list[Classified] = []
    with tqdm(total=len(rows), unit=" texts") as bar, compiling.shown_in(bar), warnings_in_one_line():
        for chunk in chunks(texts, pair):
            columns = list(zip(*chunk, strict=True))
            seconds = columns[1] if len(columns) > 1 else None if pair is None else [pair] * len(chunk)
            found += bert.classify(columns[0], seconds)
            bar.update(len(chunk))
    results = [_cells(text[0], classified) for text, classified in zip(texts, found, strict=True)]
    lines = _json_lines if output and output.suffix in JSON_NAMES else _table
    separator = "\t" if output and output.suffix == ".tsv" else ","
    with written(output) as target:
        target.writelines(lines(rows, results, separator))


def _cells(text: str, found: Classified) -> dict[str, str | float]:
    numbers = [*found.probabilities.values(), *([found.label] if isinstance(found.label, float) else [])]
    if not all(map(math.isfinite, numbers)):
        raise overflowed(f"{text[:40]!r}")
    if isinstance(found.label, float):
        return {PREDICTED: round(found.label, 6)}
    if isinstance(found.label, str):
        return {PREDICTED: found.label, PROBABILITY: round(found.probabilities[found.label], 6)}
    labels = {PREDICTED: "; ".join(map(str, found.label))} if all(isinstance(x, str) for x in found.label) else {}
    return labels | {f"{PREDICTED} {name}": round(value, 6) for name, value in found.probabilities.items()}


def _json_lines(rows: list[Row], results: list[dict], separator: str) -> Iterator[str]:
    for row, cells in zip(rows, results, strict=True):
        try:
            yield json_line(row.values | cells) + "\n"
        except ValueError:
            raise InputError(f"{row.location}: holds NaN or infinity, which JSON doesn't have; write .csv") from None


def _table(rows: list[Row], results: list[dict], separator: str) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row.values)) + list(results[0])
    line = io.StringIO(newline="")
    writer = csv.writer(line, delimiter=separator, lineterminator="\n")

    def written(cells: list) -> str:
        writer.writerow(cells)
        text = line.getvalue()
        line.seek(0)
        line.truncate()
        return text

    yield written(names)
    for row, cells in zip(rows, results, strict=True):
        own = [row.values.get(name) for name in names[: len(names) - len(cells)]]
        yield written([*map(_cell, own), *map(_not_a_formula, cells.values())])


def _cell(value):
    """A list or an object of a JSON row as JSON."""
    return json_line({"": value})[5:-1] if isinstance(value, dict | list) else value


def _not_a_formula(value: str | float) -> str | float:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
