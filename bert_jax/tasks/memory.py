"""Data that a program has in memory, as the table of a split: the same rows as from a file.

No package is imported for it: a table is whatever has column names and returns a column by its name, be it a dict, a
pandas DataFrame or a Hugging Face `datasets.Dataset`; or whatever yields a dict for each row.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from bert_jax.config import InputError
from bert_jax.tasks.tables import Row, Table

KINDS = "a list of dicts, a dict of columns, a pandas DataFrame or a Hugging Face Dataset"
# Types of pandas' marks for missing values, besides None and NaN.
MISSING_TYPES = ("NAType", "NaTType")


def table_of(split: str, data: Any) -> Table:
    """The rows of "train", "dev" or "test", called for example "train, row 7" in errors, counted from 0.

    Values of NumPy and pandas become Python's, and class numbers of a Dataset's `ClassLabel` become names. Raises
    `InputError` for data that aren't a table, or have no rows.
    """
    if isinstance(data, str | bytes | PurePath):
        raise InputError(f"{split}: is a {type(data).__name__}, must be data; name a file in the config: task.{split}")
    features = getattr(data, "features", None)
    class_names = {}
    if isinstance(features, Mapping):
        class_names = {name: names for name in features if (names := _class_names(features[name]))}
    rows = []
    for number, record in enumerate(_records(split, data)):
        location, values = f"{split}, row {number}", {}
        for name, value in record.items():
            try:
                values[str(name)] = _with_names(_plain(value), class_names.get(name))
            except UnicodeEncodeError as error:
                half = f"has half a character at {error.start}, which can't be written"
                raise InputError(f"{location}: {name} {half}; correct it, or leave the row out") from None
        rows.append(Row(location, values))
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
    """The names of the columns; None if the data are rows."""
    names = getattr(data, "column_names", None)
    if isinstance(names, Mapping):  # A DatasetDict, which has names for each of its splits.
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
    for method in ("tolist", "to_pylist"):  # The first is NumPy's, pandas' and torch's; the second Arrow's.
        if hasattr(column, method):
            column = getattr(column, method)()
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
        raise InputError(f"{split}: column {name!r} is {column!r:.60}, must be a list with a value for each row")
    return list(column)


def _plain(value: Any) -> Any:
    """The value with JSON's types, where possible; raises UnicodeEncodeError for half a character."""
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
    """The class names of a `ClassLabel`, or a list of them, by duck typing; None for other features."""
    return getattr(getattr(feature, "feature", feature), "names", None)


def _with_names(value: Any, names: list[str] | None) -> Any:
    """The value with names instead of class numbers; -1, an unknown class, stays."""
    if not names:
        return value
    if isinstance(value, list):
        return [_with_names(inner, names) for inner in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
