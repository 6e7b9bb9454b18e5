"""Data that a program has in memory, as the table of a split: the same rows that a file would have.

No package is imported for it: what has names of columns and gives a column for its name is a table, be it a dict, a
pandas DataFrame or a Hugging Face `datasets.Dataset`; and so is what gives a dict for each row.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from bert_jax.config import InputError
from bert_jax.tasks.tables import Row, Table

KINDS = "a list of dicts, a dict of columns, a pandas DataFrame or a Hugging Face Dataset"
# How pandas marks what is missing, beside None and NaN.
MISSING_TYPES = ("NAType", "NaTType")


def table_of(split: str, data: Any) -> Table:
    """The rows of "train", "dev" or "test", called "train, row 7" in errors: rows are counted from 0, as in Python.

    Values of NumPy and pandas become Python's, and a class number of a Dataset's `ClassLabel` its name. Raises
    `InputError` for what is no table, or has no rows.
    """
    if isinstance(data, str | bytes | PurePath):
        raise InputError(f"{split}: is a {type(data).__name__}, must be data; name a file in the config: task.{split}")
    features = getattr(data, "features", None)
    class_names = {}
    if isinstance(features, Mapping):
        class_names = {name: found for name in features if (found := _class_names(features[name]))}
    rows = []
    for number, record in enumerate(_records(split, data)):
        place, values = f"{split}, row {number}", {}
        for name, value in record.items():
            try:
                values[str(name)] = _with_names(_plain(value), class_names.get(name))
            except UnicodeEncodeError as error:
                half = f"has half a character at {error.start}, which can't be written"
                raise InputError(f"{place}: {name} {half}; correct it, or leave the row out") from None
        rows.append(Row(place, values))
    if not rows:
        raise InputError(f"{split}: holds no rows")
    return Table(split, rows)


def _records(split: str, data: Any) -> Iterator[Mapping]:
    names = _column_names(split, data)
    if names is None:
        if not isinstance(data, Iterable):
            raise InputError(f"{split}: is a {type(data).__name__}, must be {KINDS}")
        for number, record in enumerate(data):
            if not isinstance(record, Mapping):
                kind = type(record).__name__
                raise InputError(f"{split}, row {number}: is a {kind}, must be a dict; data are {KINDS}")
            yield record
        return
    columns = {name: _values(split, name, data[name]) for name in names}
    for name, values in columns.items():
        if len(values) != len(columns[names[0]]):
            sizes = f"has {len(values)} values, {names[0]!r} has {len(columns[names[0]])}"
            raise InputError(f"{split}: column {name!r} {sizes}; give each row a value of both")
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(names, row, strict=True))


def _column_names(split: str, data: Any) -> list | None:
    """None of data that are rows."""
    names = getattr(data, "column_names", None)
    if isinstance(names, Mapping):  # A DatasetDict's, of each of its splits.
        raise InputError(f"{split}: holds several splits ({', '.join(map(str, names))}); give one of them")
    if not isinstance(names, list | tuple):
        names = data if isinstance(data, Mapping) else getattr(data, "columns", None)
    if names is None or not hasattr(data, "__getitem__"):
        return None
    names = list(names)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{split}: two columns are called {twice!r}; give each a name of its own")
    return names


def _values(split: str, name: Any, column: Any) -> list:
    for method in ("tolist", "to_pylist"):  # Of NumPy, pandas and torch; of Arrow.
        if hasattr(column, method):
            column = getattr(column, method)()
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
        raise InputError(f"{split}: column {name!r} is {column!r:.60}, must be a list with a value for each row")
    return list(column)


def _plain(value: Any) -> Any:
    """The value as JSON would have it, as far as it can; raises UnicodeEncodeError for half a character."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    elif isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if type(value).__name__ in MISSING_TYPES else value


def _class_names(feature: Any) -> list[str] | None:
    """Those of a `ClassLabel`, or of a list of them, which are duck-typed."""
    return getattr(getattr(feature, "feature", feature), "names", None)


def _with_names(value: Any, names: list[str] | None) -> Any:
    """The value with class numbers as their names; -1 means that a class isn't known, and stays."""
    if not names:
        return value
    if isinstance(value, list):
        return [_with_names(inner, names) for inner in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
