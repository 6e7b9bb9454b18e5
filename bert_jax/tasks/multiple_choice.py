"""Choosing the right text among several: SWAG, and your own files (BERT paper, section 4.4)."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import models
from bert_jax.config import HeadConfig, InputError, TaskConfig
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.files import storage
from bert_jax.tasks.base import Choices, check_unnamed
from bert_jax.tasks.classes import counted
from bert_jax.tasks.classification import model_input
from bert_jax.tasks.tables import NO_TABLES, Row, Table, Tables, check_ids, read_table

# The names of SWAG's official files.
FILES = {"train": "train.csv", "dev": "val.csv", "test": "test.csv"}
CHOICE = re.compile(r"(?:ending|choice)(\d+)")


@dataclass(frozen=True)
class Example:
    """A context, the texts that may follow it, and the index of the right one."""

    context: str
    choices: list[str]
    label: int | None
    id: str


@dataclass(frozen=True)
class Chosen:
    """The predicted choice's index, and the probability of each choice."""

    choice: int
    probabilities: list[float]


class MultipleChoice:
    """The `Task` "swag" or "multiple_choice". Each choice is a pair, [CLS] context [SEP] choice [SEP].

    Tables are SWAG's, where sent1 is the context and sent2 begins each of the choices ending0, ending1, ...; or have
    the columns context, question (optional), choice0, choice1, ... and label; or, as JSON lines and in memory, context,
    question (optional), choices (a list) and label. The question is put before each choice. Labels are indices from 0.

    `tables` are splits in memory, used instead of the config's files.
    """

    head = HeadConfig(models.MultipleChoice.kind)
    best_by = "accuracy"

    def __init__(self, config: TaskConfig, labels: tuple[str, ...] = (), tables: Tables = NO_TABLES):
        check_unnamed(config)
        self.config, self._tables = config, tables
        self.dev_splits = tuple(split for split in ("dev",) if self._path(split))
        self.test_splits = tuple(split for split in ("test",) if self._path(split))

    def _path(self, split: str) -> Path | Table | None:
        if split in self._tables:
            return self._tables[split]
        given = getattr(self.config, split)
        if given or not self.config.folder:
            return Path(given) if given else None
        path = Path(self.config.folder) / FILES[split]
        return path if path.is_file() else None

    def read(self, split: str) -> list[Example]:
        path = self._path(split)
        if path is None:
            raise InputError(
                f"task.{split}: names no file, and task.folder {self.config.folder} holds no {FILES[split]}; "
                "give one or the other"
            )
        examples: list[Example] = []
        rows = read_table(path)
        if split != "train":
            check_ids(rows, self.config.id_column)
        for row in rows:
            example = self._example(row, str(len(examples)), test=split == "test")
            if examples and len(example.choices) != len(examples[0].choices):
                count = f"{len(example.choices)}, but {len(examples[0].choices)} in the first example"
                raise InputError(f"{row.location}: choices: {count}; give each the same number")
            examples.append(example)
        return examples

    def _example(self, row: Row, number: str, test: bool) -> Example:
        values = row.values
        context, begin = ("sent1", "sent2") if "sent1" in values else ("context", "question")
        choices = values.get("choices")
        if choices is None:
            numbered = {int(match[1]): values[match[0]] for match in map(CHOICE.fullmatch, values) if match}
            choices = [numbered[i] for i in sorted(numbered)]
        if context not in values or not isinstance(choices, list) or len(choices) < 2:
            raise InputError(
                f"{row.location}: an example has a context (sent1) and two or more choices (a list, or choice0, "
                f"choice1, ... or ending0, ending1, ...); this has {', '.join(values)}"
            )
        for text in (values[context], *choices):
            if not isinstance(text, str) or not (text.strip() or test):
                raise InputError(f"{row.location}: {context} or a choice is {text!r}; give each a text")
        before = values.get(begin)
        if before is None or before != before:  # pandas has NaN for what is missing.
            before = ""
        if not isinstance(before, str):
            raise InputError(f"{row.location}: {begin} is {before!r}; give it a text, or none")
        label = self._label(row, len(choices), test)
        id_column = self.config.id_column
        if id_column and id_column not in values:
            raise InputError(
                f"{row.location}: has no column {id_column!r}, only {', '.join(values)}; see --task.id-column"
            )
        id_ = str(values[id_column]) if id_column else number
        return Example(values[context], [f"{before} {choice}".strip() for choice in choices], label, id_)

    def _label(self, row: Row, count: int, test: bool) -> int | None:
        name = self.config.label_column
        value: Any = row.values.get(name)
        if test and value in (None, "", -1, "-1"):
            return None
        if value in (None, ""):
            raise InputError(f"{row.location}: has no {name!r}; give the right choice's index, from 0")
        if not re.fullmatch(r"\d+", str(value)) or int(value) >= count:
            raise InputError(
                f"{row.location}: {name} is {value!r}, must be the right choice's index, 0 to {count - 1}; correct it"
            )
        return int(value)

    def summary(self, examples: list[Example]) -> str:
        return counted(None if e.label is None else f"choice {e.label}" for e in examples)

    def inputs(self, example: Example) -> tuple[str, ...]:
        return example.context, *example.choices

    def features(self, examples: list[Example], tokenizer: Tokenizer, length: int, training: bool) -> list[Choices]:
        contexts = tokenizer.encode([example.context for example in examples])
        features = []
        for number, (example, context) in enumerate(zip(examples, contexts, strict=True)):
            inputs = [model_input(tokenizer, (context, ids), length) for ids in tokenizer.encode(example.choices)]
            input_ids, token_type_ids = map(list, zip(*inputs, strict=True))
            features.append(Choices(input_ids, token_type_ids, example.label, number))
        return features

    def predict(self, examples: list[Example], features: list[Choices], logits: list[np.ndarray]) -> list[Chosen]:
        """A prediction for each feature's logits, [choices]."""
        predictions = []
        for scores in logits:
            odds = np.exp(np.asarray(scores, np.float64) - np.max(scores))
            predictions.append(Chosen(int(odds.argmax()), (odds / odds.sum()).tolist()))
        return predictions

    def metrics(self, examples: list[Example], predictions: list[Chosen]) -> dict[str, float]:
        """The accuracy in percent of the examples with a label; empty if there are none."""
        right = [row["right"] for row in self.rows(examples, predictions) if row["right"] is not None]
        return {"accuracy": 100 * sum(right) / len(right)} if right else {}

    def rows(self, examples: list[Example], predictions: list[Chosen]) -> list[dict]:
        return [
            {
                "id": example.id,
                "text": example.context,
                "gold": None if example.label is None else example.choices[example.label],
                "predicted": example.choices[prediction.choice],
                "right": None if example.label is None else example.label == prediction.choice,
                "confidence": prediction.probabilities[prediction.choice],
            }
            for example, prediction in zip(examples, predictions, strict=True)
        ]

    def submit(self, folder: Path, split: str, examples: list[Example], predictions: list[Chosen]) -> list[Path]:
        """Writes SPLIT.csv with index and choice; for SWAG, with the columns that its csv_predict.py writes."""
        storage.make_folder(folder)
        path, text = folder / f"{split}.csv", io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("", "pred") if self.config.name == "swag" else ("index", "prediction"))
        writer.writerows((e.id, p.choice) for e, p in zip(examples, predictions, strict=True))
        storage.write_whole(path, text.getvalue().encode())
        return [path]
