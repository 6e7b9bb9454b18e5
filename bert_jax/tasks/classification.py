"""Classification and regression of texts and pairs: GLUE's tasks, and your own files."""

import csv
import io
import json
import math
import re
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.config import VALUE, HeadConfig, InputError, TaskConfig
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.files import storage
from bert_jax.files.printable import say
from bert_jax.models import SequenceClassification
from bert_jax.tasks import classes, glue, metrics
from bert_jax.tasks.base import Feature, Ids, check_unnamed
from bert_jax.tasks.tables import NO_TABLES, Row, Table, Tables, check_ids, read_table

METRICS = {
    "accuracy": metrics.accuracy,
    "f1": metrics.f1,
    "macro_f1": metrics.macro_f1,
    "matthews": metrics.matthews,
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "mse": metrics.mean_squared_error,
}
# The best checkpoint is chosen by the last metric.
CLASSIFICATION_METRICS = ("macro_f1", "accuracy")
REGRESSION_METRICS = ("mse", "pearson", "spearman")
# The most labels that an error lists.
LISTED = 10
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# What test files have instead of hidden labels, besides empty cells and `classes.MISSING`.
HIDDEN = {"-1", "-1.0", "?"}


@dataclass(frozen=True)
class Example:
    id: str
    texts: tuple[str, ...]
    """One text, or a pair."""
    label: Any
    """The class's name; the value, for regression; or any number of labels, in the head's order; None where it isn't
    known."""


@dataclass(frozen=True)
class Prediction:
    label: Any
    """The class's name, the value, or the labels, in the form of `Example.label`."""
    confidence: float | None
    """The probability of the class, or that all labels are as predicted; None for regression."""
    probabilities: tuple[float, ...] = ()
    """The probability of each label, where any number of them is right."""


class Classification:
    """A `Task`: one of GLUE's, or `classification` or `regression` on your own data.

    `labels` are those of a trained model, in the order of its logits; without them, the labels are GLUE's or those in
    the training set. `tables` are splits in memory, used instead of the config's files.
    """

    FEWEST_LABELS = 2
    # What else an error advises where a table has no label column.
    LABEL_REMEDY = ""

    def __init__(self, config: TaskConfig, labels: tuple[str, ...] = (), tables: Tables = NO_TABLES):
        self._config = config
        self._model_labels = tuple(labels)
        self._tables = tables
        self._glue = glue.GLUE_TASKS.get(config.name)
        self._regression = not self._glue.labels if self._glue else config.name == "regression"
        if self._glue and tables:
            other = "for these set task.name to classification or regression"
            raise InputError(
                f"{config.name}: reads GLUE's files, or TensorFlow Datasets, and no data in memory; {other}"
            )
        if self._glue or self._regression:
            check_unnamed(config)
        own = REGRESSION_METRICS if self._regression else CLASSIFICATION_METRICS
        self._metrics = self._glue.metrics if self._glue else own
        self.best_by = self._metrics[-1]
        self.dev_splits = glue.dev_splits(config) if self._glue else ("dev",) if self._source("dev") else ()
        self.test_splits = glue.test_splits(config) if self._glue else ("test",) if self._source("test") else ()

    def _source(self, split: str) -> str | Table | None:
        return self._tables.get(split) or getattr(self._config, split)

    @cached_property
    def head(self) -> HeadConfig:
        return HeadConfig(SequenceClassification.kind, self._labels(), **(VALUE if self._regression else {}))

    def _labels(self) -> tuple[str, ...]:
        given, name = self._model_labels, self._config.name
        labels: tuple[str, ...]
        if self._regression:
            if len(given) > 1:
                remedy = f"the model has {len(given)} outputs: {listed(given)}; give a model with one"
                raise InputError(f"{name}: is a regression, of one value, but {remedy}")
            return given or (self._glue.label if self._glue else self._config.label_column,)
        if given and self._glue and sorted(given) != sorted(self._glue.labels):
            differ = f"has labels {listed(self._glue.labels)}, the model {listed(given)}"
            raise InputError(f"{name}: {differ}; give a model of this task that says what its outputs are called")
        named = self._config.labels
        if given and named and sorted(given) != sorted(named):
            raise InputError(f"task.labels: are {listed(named)}, the model's {listed(given)}; leave them out")
        labels = given or named or (self._glue.labels if self._glue else self._labels_of_training_set())
        if len(labels) < self.FEWEST_LABELS:
            where = "the model" if given else self._source("train")
            raise InputError(f"{where}: has the one label {labels[0]!r}; a classification has two or more")
        return labels

    def _labels_of_training_set(self) -> tuple[str, ...]:
        rows, columns = self._training
        labels = [(_label(row, columns.label), row.location) for row in rows]
        self._check_header(rows[0], columns, labels)
        return classes.classes_of(labels)

    def _check_header(self, row: Row, columns: glue.Columns, labels: list[classes.Located], test: bool = False) -> None:
        """Raises `InputError` where columns are given by number, but the table's first row looks like a header."""
        if self._config.text_column.isdecimal():
            classes.check_header([text_of(row, name, test) for name in columns.texts], labels, row.location)

    @cached_property
    def _training(self) -> tuple[list[Row], glue.Columns]:
        return self._own("train")

    def read(self, split: str) -> list[Example]:
        if self._glue:
            rows, columns = glue.read_glue(self._config, split)
        else:
            rows, columns = self._training if split == "train" else self._own(split)
        test = split.startswith("test")
        examples = [self._example(row, columns, str(i), test) for i, row in enumerate(rows)]
        if not examples:
            raise InputError(f"{self._config.name}, {split}: has no examples")
        if test and self._regression and {example.label for example in examples} == {-1}:
            examples = [replace(example, label=None) for example in examples]
        if empty := sum(not all(map(str.strip, example.texts)) for example in examples):
            self._say(split, f"{empty} examples with an empty text, kept")
        labels = (example.label for example in examples)
        if split == "train" and (count := classes.contradictions(map(self.inputs, examples), labels)):
            self._say(split, f"{count} inputs occur more than once, with different labels")
        return examples

    def _say(self, split: str, what: str) -> None:
        say(f"{self._config.name}, {split}: {what}", file=sys.stderr)

    def _own(self, split: str) -> tuple[list[Row], glue.Columns]:
        c = self._config
        file = self._source(split)
        if not file:
            raise InputError(f"task.{split}: names no file; give a table, as CSV or JSON lines, with --task.{split}")
        numbers = [int(name) for name in (c.text_column, c.pair_column or "", c.label_column) if name.isdecimal()]
        rows = read_table(file, header=not c.text_column.isdecimal(), width=max(numbers, default=1))
        for setting in ("text_column", "pair_column", "id_column", "label_column"):
            column = getattr(c, setting)
            needed = column is not None and (setting != "label_column" or self._needs_label_column(split, rows[0]))
            if needed and column not in rows[0].values:
                option = f"--task.{setting.replace('_', '-')}"
                columns = listed(tuple(rows[0].values))
                more = self.LABEL_REMEDY if setting == "label_column" else ""
                what = f"has no column {column!r}, only {columns}; name the right one with {option}"
                if isinstance(file, Table):
                    raise InputError(f"{file}: {what}{more}")
                raise InputError(f"{file}, line 1: {what}, or, where the file has no header, give its number{more}")
        names = glue.Columns(self._text_columns, c.label_column, c.id_column)
        if split != "train":
            check_ids(rows, c.id_column)
        if split == "test":
            self._say_unlabelled(file, set(rows[0].values) - {*names.texts, c.id_column})
            self._check_header(rows[0], names, [], test=True)
        return rows, names

    @property
    def _text_columns(self) -> tuple[str, ...]:
        c = self._config
        return (c.text_column,) if c.pair_column is None else (c.text_column, c.pair_column)

    def _needs_label_column(self, split: str, row: Row) -> bool:
        """Whether a person's own table must have the label column; `row` is the table's first one."""
        return split != "test"

    def _say_unlabelled(self, file: str | Table, others: set[str]) -> None:
        if others and self._config.label_column not in others:
            columns = f"no column {self._config.label_column!r} for scores, but {listed(tuple(sorted(others)))}"
            self._say("test", f"{file} has {columns}; --task.label-column names it")

    def _example(self, row: Row, columns: glue.Columns, number: str, test: bool) -> Example:
        texts = tuple(text_of(row, name, test) for name in columns.texts)
        if not (test or self._glue):  # Those may be empty: predictions must be handed in for every row.
            for name, text in zip(columns.texts, texts, strict=True):
                if not text.strip():
                    raise InputError(f"{row.location}: {name} is empty; fill it in, or leave the row out")
        if self._config.id_column:
            number = str(value_of(row, self._config.id_column))
        elif columns.id:
            number = str(row.values.get(columns.id, number))
        return Example(
            id=number,
            texts=texts,
            label=self._label(row, columns.label, test),
        )

    def _label(self, row: Row, column: str, test: bool) -> Any:
        """The example's label; None where a test file hides it."""
        return None if test and self._is_hidden(row.values.get(column)) else self._checked(row, column)

    def _is_hidden(self, value: Any) -> bool:
        """Whether the label in a test file's cell is hidden."""
        label = "" if value is None else str(value).strip()
        if self._regression:  # In a regression, -1 may be a value.
            return not label or label in classes.MISSING
        return not label or (label in HIDDEN | classes.MISSING and label not in self._ids)

    def _checked(self, row: Row, column: str) -> str | float:
        label = _label(row, column)
        if self._regression:
            return _number(row, column, label)
        self._check_known(row, column, label)
        return label

    def _check_known(self, row: Row, column: str, label: str) -> None:
        if label not in self._ids:
            source = "the task's" if self._glue else "task.labels" if self._config.labels else "the training set's"
            source = "the model's" if self._model_labels else source
            raise InputError(
                f"{row.location}: label {label!r} in column {column} is none of {source}: {listed(self.head.labels)}; "
                "correct it, or leave the row out"
            )

    def features(self, examples: list[Example], tokenizer: Tokenizer, length: int, training: bool) -> list[Feature]:
        """A feature for each example: [CLS] text [SEP] or [CLS] first [SEP] second [SEP], or the layout that the
        tokenizer has instead (`model_input`)."""
        ids = [tokenizer.encode(list(texts)) for texts in zip(*(e.texts for e in examples), strict=True)]
        inputs = (model_input(tokenizer, parts, length) for parts in zip(*ids, strict=True))
        labels = (None if e.label is None else self._target(e.label) for e in examples)
        return [Feature(*x, label, i) for i, (x, label) in enumerate(zip(inputs, labels, strict=True))]

    def _target(self, label: Any) -> Any:
        """The label in the form that `Head.write_label` takes."""
        return label if self._regression else self._ids[label]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.head.labels)}

    def predict(self, examples: list[Example], features: list[Feature], logits: list[np.ndarray]) -> list[Prediction]:
        """A prediction for each feature's logits, [labels]; for regression, the one logit is the value."""
        if self._regression:
            return [Prediction(float(x[0]), None) for x in logits]
        return [self._most_probable(np.asarray(x, np.float64)) for x in logits]

    def _most_probable(self, logits: np.ndarray) -> Prediction:
        odds = np.exp(logits - logits.max())
        best = int(odds.argmax())
        return Prediction(self.head.labels[best], float(odds[best] / odds.sum()))

    def summary(self, examples: list[Example]) -> str:
        labels = [e.label for e in examples]
        if not self._regression:
            return classes.counted(labels, self.head.labels)
        values = [x for x in labels if x is not None]
        spread = [f"from {min(values):g} to {max(values):g}, mean {sum(values) / len(values):.4g}"] if values else []
        unknown = [f"{len(labels) - len(values):,} without a label"] if len(values) < len(labels) else []
        return "; ".join(spread + unknown)

    def inputs(self, example: Example) -> tuple[str, ...]:
        return example.texts

    def metrics(self, examples: list[Example], predictions: list[Prediction]) -> dict[str, float]:
        """The metrics of the examples with a label, in percent (not the mean squared error); empty if there are none. A
        correlation is NaN where the gold or the predicted values are all equal."""
        pairs = [(e.label, p.label) for e, p in zip(examples, predictions, strict=True) if e.label is not None]
        if not pairs:
            return {}
        if not self._regression:  # Sorted, class "1" has number 1 whatever the model's order: F1 is for that class.
            ids = {label: i for i, label in enumerate(sorted(self.head.labels))}
            pairs = [(ids[gold], ids[predicted]) for gold, predicted in pairs]
        gold, predicted = map(np.array, zip(*pairs, strict=True))
        scores = {name: METRICS[name](gold, predicted) for name in self._metrics}
        return {name: score if name == "mse" else 100 * score for name, score in scores.items()}

    def rows(self, examples: list[Example], predictions: list[Prediction]) -> list[dict]:
        """As in `Task`, with `id`, and `pair` for a second text; for regression `error`, while `right` and `confidence`
        are None."""
        return [self._row(e, p) for e, p in zip(examples, predictions, strict=True)]

    def _row(self, example: Example, prediction: Prediction) -> dict:
        gold, predicted = example.label, prediction.label
        known = gold is not None
        return {
            "id": example.id,
            **dict(zip(("text", "pair"), example.texts, strict=False)),
            "gold": gold,
            "predicted": predicted,
            "right": gold == predicted if known and not self._regression else None,
            "confidence": prediction.confidence,
            **({"error": predicted - gold} if known and self._regression else {}),
        }

    def submit(self, folder: Path, split: str, examples: list[Example], predictions: list[Prediction]) -> list[Path]:
        """Writes GLUE's file of index and prediction, for example MNLI-mm.tsv; for your own data, SPLIT.csv."""
        name = glue.submission_name(self._config.name, split) if self._glue else f"{split}.csv"
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t" if self._glue else ",", lineterminator="\n")
        writer.writerow(self._written_columns())
        writer.writerows((e.id, *self._written(p)) for e, p in zip(examples, predictions, strict=True))
        storage.make_folder(folder)
        storage.write_whole(folder / name, text.getvalue().encode())
        return [folder / name]

    def _written_columns(self) -> tuple[str, ...]:
        return "index", "prediction"

    def _written(self, prediction: Prediction) -> tuple[str, ...]:
        """The cells after the index."""
        label = prediction.label
        return (f"{min(max(label, 0), 5):.3f}" if self._glue and self._regression else str(label),)


def model_input(tokenizer: Tokenizer, parts: tuple[Ids, ...], length: int) -> tuple[Ids, Ids]:
    """The ids and token types of one text or two, at most `length`, in the tokenizer's layout.

    In a pair, the longer text is cut to the other's length, then both alternately, as `tokenizers` does by
    "longest_first". (The original always leaves an odd token to the first text, not to the longer one.)
    """
    layout = tokenizer.layout
    room = length - layout.special_tokens(len(parts))
    if len(parts) == 2 and len(parts[0]) + len(parts[1]) > room:
        shorter = min(len(parts[0]), len(parts[1]), room // 2)
        first_longer = len(parts[0]) > len(parts[1])
        keep = [room - shorter, shorter] if first_longer else [shorter, room - shorter]
    else:
        keep = [room] * len(parts)
    return layout.joined([layout.shortened(part, kept) for part, kept in zip(parts, keep, strict=True)])


def value_of(row: Row, column: str) -> Any:
    """A row's value in a column; raises `InputError` where it has none."""
    if column not in row.values:
        columns = listed(tuple(row.values))
        raise InputError(f"{row.location}: has no {column!r}, only {columns}; add it, or leave the row out")
    return row.values[column]


def text_of(row: Row, column: str, test: bool = False) -> str:
    """A row's text in a column; in a test file, an empty text where there is none."""
    value = value_of(row, column)
    if test and (value is None or value != value):  # JSON's null, or NaN.
        return ""
    if not isinstance(value, str):
        raise InputError(f"{row.location}: {column} is {value!r}, must be text")
    return value


def _label(row: Row, column: str) -> str:
    return label_of(value_of(row, column), f"{row.location}: {column}")


def label_of(value: Any, where: str) -> str:
    """A label's name from the value of a cell, or of an item in a cell's list."""
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{where} is {json.dumps(value, default=str)}, must be text or a number")
    label = value.strip() if isinstance(value, str) else json.dumps(value)
    if not label:
        raise InputError(f"{where} is empty; fill it in, or leave the row out")
    return label


def _number(row: Row, column: str, label: str) -> float:
    number = float(label) if NUMBER.fullmatch(label) else math.nan
    if not math.isfinite(number):
        how = "as 1234.5, with a point and nothing between thousands"
        raise InputError(
            f"{row.location}: {column} is {label!r}, must be a number; write it {how}, or leave the row out"
        )
    return number


def listed(names: tuple[str, ...]) -> str:
    """Names separated by commas, for an error; a long list is abbreviated."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
