"""Downstream tasks, a file for each family: reading, features, metrics, post-processing. No JAX."""

from typing import Any

from bert_jax.config import InputError, TaskConfig
from bert_jax.tasks.base import Task
from bert_jax.tasks.memory import table_of


def make(config: TaskConfig, labels: tuple[str, ...] = (), **data: Any) -> Task:
    """The task that the config names; `labels` are a trained model's, by default those of the training set.

    `data` are splits in memory (`train`, `dev`, `test`; None: not given), each used instead of the file that the config
    would name. Raises `InputError` for data that aren't a table, and for a split that is also given as a file.
    """
    tables = {split: table_of(split, values) for split, values in data.items() if values is not None}
    for split in tables:
        if file := getattr(config, split):
            raise InputError(f"task.{split}: names {file}, and {split} is given as data too; give one of them")
    match config.name:
        case "squad":
            from bert_jax.tasks.squad import Squad

            return Squad(config, tables)
        case "ner" | "srl":
            from bert_jax.tasks import tagging

            return tagging.from_config(config, labels, tables)
        case "swag" | "multiple_choice":
            from bert_jax.tasks.multiple_choice import MultipleChoice

            return MultipleChoice(config, tables)
        case "multi_label":
            from bert_jax.tasks.multi_label import MultiLabel

            return MultiLabel(config, labels, tables)
    from bert_jax.tasks.classification import Classification

    return Classification(config, labels, tables)
