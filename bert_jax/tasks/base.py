"""The protocol of tasks: examples become features; the model's outputs become predictions, scores and files."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bert_jax.config import HeadConfig, InputError, TaskConfig
from bert_jax.data.tokenizers import Tokenizer

Ids = list[int]


@dataclass(frozen=True)
class Feature:
    """A model's input made of an example, or of a part of it, and the expected output."""

    input_ids: Ids
    """The ids with [CLS] and [SEP], without padding."""
    token_type_ids: Ids
    label: Any
    """The class; the value, for regression; 0 or 1 for each label, where any number is right; a label for each token;
    an answer's (start, end); None where it isn't known."""
    example: int
    """The number of its example: a long paragraph has several features."""

    @property
    def texts(self) -> list[tuple[Ids, Ids]]:
        """(ids, token types), as the only item."""
        return [(self.input_ids, self.token_type_ids)]


@dataclass(frozen=True)
class Choices:
    """A model's input made of a multiple-choice example, and the expected output."""

    input_ids: list[Ids]
    """The ids of each choice, as in `Feature`."""
    token_type_ids: list[Ids]
    label: int | None
    """The right choice, from 0; None where it isn't known."""
    example: int

    @property
    def texts(self) -> list[tuple[Ids, Ids]]:
        """(ids, token types) of each choice."""
        return list(zip(self.input_ids, self.token_type_ids, strict=True))


def check_unnamed(config: TaskConfig) -> None:
    """Raises `InputError` where the config names labels for a task that has its own."""
    if config.labels:
        raise InputError(f"task.labels: the task {config.name} has its own; leave them out")


class Task(Protocol):
    """A task with its files. Reading raises `InputError` naming file, line and remedy."""

    @property
    def head(self) -> HeadConfig: ...

    best_by: str
    """The metric by which the best checkpoint is chosen; higher is better."""
    dev_splits: tuple[str, ...]
    test_splits: tuple[str, ...]

    def read(self, split: str) -> list[Any]:
        """The examples of "train" or one of the other splits, in the file's order."""

    def features(self, examples: list[Any], tokenizer: Tokenizer, length: int, training: bool) -> list[Any]:
        """The model's inputs for the examples (`Feature`s or `Choices`), of at most `length` tokens each."""

    def summary(self, examples: list[Any]) -> str:
        """How often each label occurs, so that a person sees what is learned or scored."""

    def inputs(self, example: Any) -> Hashable:
        """An example without its label, to find equal examples: the texts that the model reads."""

    def predict(self, examples: list[Any], features: list[Any], logits: list[np.ndarray]) -> list[Any]:
        """A prediction for each example. `logits` has an array for each feature, without padding: [labels],
        [tokens, labels], [tokens, 2] or [choices]."""

    def metrics(self, examples: list[Any], predictions: list[Any]) -> dict[str, float]:
        """The task's official metrics, in percent where the task gives percent."""

    def rows(self, examples: list[Any], predictions: list[Any]) -> list[dict]:
        """A dict for each example, for JSON lines and a page to look at: `text`, `gold`, `predicted`, `right`,
        `confidence` (0 to 1).

        Where any number of labels is right, `gold` and `predicted` are lists of labels, and `probabilities` has the
        probability of each label by name."""

    def submit(self, folder: Path, split: str, examples: list[Any], predictions: list[Any]) -> list[Path]:
        """Writes the task's official submission files; returns them."""
