"""Any number of labels for a text or a pair: your own tables, with a cell of labels or a column for each label."""

import json
from functools import cached_property
from typing import Any

import numpy as np

from bert_jax.config import HeadConfig, InputError, TaskConfig
from bert_jax.files.contents import json_value
from bert_jax.models import SequenceClassification
from bert_jax.tasks import classes, glue, metrics
from bert_jax.tasks.classification import Classification, Example, Prediction, label_of, value_of
from bert_jax.tasks.tables import NO_TABLES, SEPARATORS, Row, Table, Tables

# Labels with at least this probability are predicted.
THRESHOLD = 0.5
# The values, in lower case, of a cell in a label's own column: whether the label is right.
CELLS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The sigmoid, without overflow."""
    return (1 + np.tanh(np.asarray(logits, np.float64) / 2)) / 2


class MultiLabel(Classification):
    """`bert_jax.tasks.base.Task`. The labels are `labels`, those of a model; else those that the config names; else
    those in the training file, sorted.

    A row's labels are in the label column, as a JSON list or separated by `task.label_separator`; an empty cell means
    no label. A table without that column has a column of 0 and 1 for each named label. A test file may lack these
    columns, leave their cells empty, or have -1 or "?" in them.
    """

    FEWEST_LABELS = 1
    LABEL_REMEDY = "; where each label has a column of 0 and 1, name all labels: --task.labels A B ..."

    def __init__(self, config: TaskConfig, labels: tuple[str, ...] = (), tables: Tables = NO_TABLES):
        super().__init__(config, labels, tables)
        self.best_by = "micro_f1"
        self._named = self._model_labels or config.labels

    @cached_property
    def head(self) -> HeadConfig:
        return HeadConfig(SequenceClassification.kind, self._labels(), problem_type="multi_label_classification")

    # ---- Files ------------------------------------------------------------------------------------------------------

    def _labels_of_training_set(self) -> tuple[str, ...]:
        rows, columns = self._training
        labels = [(label, row.location) for row in rows for label in self._in_cell(row, columns.label)]
        if not labels:
            where = f"no row has a label in column {columns.label!r}"
            raise InputError(f"{self._source('train')}: {where}; name the right one with --task.label-column")
        self._check_header(rows[0], columns, [(str(row.values[columns.label]), row.location) for row in rows])
        self._check_separator(labels)
        return classes.classes_of(labels)

    def _check_separator(self, labels: list[classes.Located]) -> None:
        """Raises `InputError` where another separator seems to be used: split by it, fewer labels are distinct."""
        names = dict(labels)
        for other in SEPARATORS.replace(self._config.label_separator, ""):
            parts = {part.strip() for label in names for part in label.split(other)}
            if parts != set(names) and len(parts) <= len(names):
                label = next(label for label in names if other in label)
                option = f"--task.label-separator {other!r}"
                how = f"if that stands between labels, add {option}; if not, name all labels: --task.labels A B ..."
                raise InputError(f"{names[label]}: the label {label!r} holds {other!r}; {how}")

    def _own(self, split: str) -> tuple[list[Row], glue.Columns]:
        rows, columns = super()._own(split)
        if split == "test" and not any(str(row.values.get(columns.label, "")).strip() for row in rows):
            # Then the labels are hidden; it doesn't mean that every row has no label.
            rows = [Row(row.location, {n: v for n, v in row.values.items() if n != columns.label}) for row in rows]
        return rows, columns

    def _needs_label_column(self, split: str, row: Row) -> bool:
        return super()._needs_label_column(split, row) and not self._has_columns(row)

    def _say_unlabelled(self, file: str | Table, others: set[str]) -> None:
        if not others & set(self._named):
            super()._say_unlabelled(file, others)

    def _has_columns(self, row: Row) -> bool:
        """Whether the table has a column for each label, instead of the label column."""
        others = row.values.keys() - {*self._text_columns, self._config.id_column}
        return self._config.label_column not in others and bool(others & set(self._named))

    def _label(self, row: Row, column: str, test: bool) -> tuple[str, ...] | None:
        if self._has_columns(row):
            return self._from_columns(row, test)
        value = row.values.get(column)
        if test and value != "" and self._is_hidden(value):
            return None
        labels = self._in_cell(row, column)
        for label in labels:
            self._check_known(row, column, label)
        return self._ordered(labels)

    def _from_columns(self, row: Row, test: bool) -> tuple[str, ...] | None:
        cells = {label: value_of(row, label) for label in self._named}
        if test and all(map(self._is_hidden, cells.values())):
            return None
        for label, cell in cells.items():
            if str(cell).strip().lower() not in CELLS:
                must = "must be 1 where the label is right, and else 0"
                raise InputError(
                    f"{row.location}: {label} is {json.dumps(cell)}, {must}; correct it, or leave the row out"
                )
        return self._ordered([label for label, cell in cells.items() if CELLS[str(cell).strip().lower()]])

    def _in_cell(self, row: Row, column: str) -> list[str]:
        """The labels in a row's cell. Raises `InputError` where one occurs twice."""
        where = f"{row.location}: {column}"
        values = self._listed(value_of(row, column), where)
        labels = [label_of(value, f"{row.location}: a label in {column}") for value in values]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise InputError(f"{where} has {twice!r} twice; name each label once")
        return labels

    def _listed(self, value: Any, where: str) -> list:
        if value is None or value != value:  # JSON's null, or NaN.
            raise InputError(f"{where} is {json.dumps(value)}; write [] where no label is right, or leave the row out")
        if not isinstance(value, str):
            return value if isinstance(value, list) else [value]
        text = value.strip()
        if not (text.startswith("[") and text.endswith("]")):
            return text.split(self._config.label_separator) if text else []
        try:
            return json_value(text, nan=True)
        except ValueError:
            how = 'write it as ["a", "b"], in double quotes'
            raise InputError(f"{where} is {text[:60]!r}, a list that isn't JSON; {how}") from None

    def _ordered(self, labels: list[str]) -> tuple[str, ...]:
        return tuple(sorted(labels, key=self._ids.__getitem__))

    # ---- Targets and predictions ------------------------------------------------------------------------------------

    def _target(self, label: tuple[str, ...]) -> list[float]:
        return [float(name in label) for name in self.head.labels]

    def predict(self, examples: list[Example], features: list, logits: list[np.ndarray]) -> list[Prediction]:
        """A prediction for each feature's logits, [labels]."""
        return [self._predicted(probabilities(x)) for x in logits]

    def _predicted(self, probs: np.ndarray) -> Prediction:
        right = (label for label, value in zip(self.head.labels, probs, strict=True) if value >= THRESHOLD)
        return Prediction(tuple(right), float(np.prod(np.maximum(probs, 1 - probs))), tuple(probs.tolist()))

    def summary(self, examples: list[Example]) -> str:
        labels = [label for e in examples for label in ([None] if e.label is None else e.label)]
        none = sum(e.label == () for e in examples)
        counts = [classes.counted(labels, self.head.labels), f"{none:,} with none of them" if none else ""]
        return "; ".join(filter(None, counts))

    def metrics(self, examples: list[Example], predictions: list[Prediction]) -> dict[str, float]:
        """The metrics of the examples whose labels are known, in percent; empty if there are none. `exact`: the share
        of examples with all labels as predicted; `lrap`: the label ranking average precision."""
        known = [(e, p) for e, p in zip(examples, predictions, strict=True) if e.label is not None]
        if not known:
            return {}
        gold = np.array([self._target(e.label) for e, _ in known], bool)
        scores = np.array([p.probabilities for _, p in known])
        predicted = scores >= THRESHOLD
        scored = {
            "exact": metrics.subset_accuracy(gold, predicted),
            "lrap": metrics.label_ranking_average_precision(gold, scores),
            "macro_f1": metrics.macro_f1_of_labels(gold, predicted),
            "micro_f1": metrics.f1(gold, predicted),
        }
        return {name: 100 * score for name, score in scored.items()}

    def _row(self, example: Example, prediction: Prediction) -> dict:
        """As in `Task`, with each label's probability; `right` where all labels are as predicted."""
        named = dict(zip(self.head.labels, prediction.probabilities, strict=True))
        return super()._row(example, prediction) | {"probabilities": named}

    def _written_columns(self) -> tuple[str, ...]:
        return *super()._written_columns(), *self.head.labels

    def _written(self, prediction: Prediction) -> tuple[str, ...]:
        """The labels as a JSON list, which `read` reads, and the probability of each label."""
        labels = json.dumps(prediction.label, ensure_ascii=False)
        return labels, *(f"{value:.6f}" for value in prediction.probabilities)
