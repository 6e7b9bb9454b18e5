"""Downstream tasks, a file for each family: reading, features, metrics, post-processing. No JAX."""

from collections.abc import Callable
from typing import Any

from bert_jax.config import GLUE, InputError, TaskConfig
from bert_jax.config.checks import did_you_mean
from bert_jax.tasks import tagging
from bert_jax.tasks.base import Task
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.memory import table_of
from bert_jax.tasks.multi_label import MultiLabel
from bert_jax.tasks.multiple_choice import MultipleChoice
from bert_jax.tasks.squad import Squad
from bert_jax.tasks.tables import Tables

TASKS: dict[str, Callable[[TaskConfig, tuple[str, ...], Tables], Task]] = {
    **dict.fromkeys((*GLUE, "classification", "regression"), Classification),
    "multi_label": MultiLabel,
    "squad": Squad,
    **dict.fromkeys(("ner", "srl"), tagging.from_config),
    **dict.fromkeys(("swag", "multiple_choice"), MultipleChoice),
}
"""By a task's name in a config, the function that makes it of the config, a trained model's labels (empty: the training
set's), and splits in memory. To bring another task, add it here."""


def make(config: TaskConfig, labels: tuple[str, ...] = (), **data: Any) -> Task:
    """The task that the config names; `labels` are a trained model's, by default those of the training set.

    `data` are splits in memory (`train`, `dev`, `test`; None: not given), each used instead of the file that the config
    would name. Raises `InputError` where there is no task of that name, for data that aren't a table, and for a split
    that is also given as a file.
    """
    if config.name not in TASKS:
        raise InputError(f"task.name: is {config.name!r:.99}; {did_you_mean(config.name[:99], TASKS)}")
    tables = {split: table_of(split, values) for split, values in data.items() if values is not None}
    for split in tables:
        if file := getattr(config, split):
            raise InputError(f"task.{split}: names {file}, and {split} is given as data too; give one of them")
    return TASKS[config.name](config, labels, tables)
