"""What every task has: examples to features, and the model's outputs to predictions, scores and files."""

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
    """A row of a batch: what the model reads of an example, and what it should say."""

    input_ids: Ids
    """With [CLS] and [SEP], without padding."""
    token_type_ids: Ids
    label: Any
    """The class, the value of a regression, 0 or 1 for each label where any number is right, a label for each token, an
    answer's (start, end); None where it isn't known."""
    example: int
    """Which one it is of: a long paragraph has several features."""

    @property
    def texts(self) -> list[tuple[Ids, Ids]]:
        """Its ids and token types."""
        return [(self.input_ids, self.token_type_ids)]


@dataclass(frozen=True)
class Choices:
    """The same of multiple choice."""

    input_ids: list[Ids]
    """Of each choice, as of `Feature`."""
    token_type_ids: list[Ids]
    label: int | None
    """The right choice, from 0; None where it isn't known."""
    example: int

    @property
    def texts(self) -> list[tuple[Ids, Ids]]:
        """Ids and token types of each choice."""
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
    """The metric by which the best checkpoint is chosen; the higher the better."""
    dev_splits: tuple[str, ...]
    test_splits: tuple[str, ...]

    def read(self, split: str) -> list[Any]:
        """The examples of "train" or one of the other splits, in the file's order."""

    def features(self, examples: list[Any], tokenizer: Tokenizer, length: int, training: bool) -> list[Any]:
        """What the model reads of them (`Feature`s or `Choices`), at most `length` tokens each."""

    def summary(self, examples: list[Any]) -> str:
        """How often each label occurs, for a person to see what is learned from, or scored."""

    def inputs(self, example: Any) -> Hashable:
        """What the model reads of an example, without its label: alike for examples that are the same."""

    def predict(self, examples: list[Any], features: list[Any], logits: list[np.ndarray]) -> list[Any]:
        """A prediction for each example. Logits are those of each feature, without padding: [labels], [tokens, labels],
        [tokens, 2] or [choices]."""

    def metrics(self, examples: list[Any], predictions: list[Any]) -> dict[str, float]:
        """The official ones, in percent where the task gives them so."""

    def rows(self, examples: list[Any], predictions: list[Any]) -> list[dict]:
        """For JSON lines and a page to look at: `text`, `gold`, `predicted`, `right`, `confidence` (0 to 1) of each.

        Where any number of labels is right, `gold` and `predicted` are these, and there are the `probabilities` of all
        labels by name."""

    def submit(self, folder: Path, split: str, examples: list[Any], predictions: list[Any]) -> list[Path]:
        """Writes the task's official submission files; returns them."""
