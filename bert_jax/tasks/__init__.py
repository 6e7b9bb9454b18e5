"""Downstream tasks, one file a family: reading, features, metrics, post-processing. No JAX."""

from typing import Any

from bert_jax.config import InputError, TaskConfig
from bert_jax.tasks.base import Task
from bert_jax.tasks.memory import table_of


def make(config: TaskConfig, labels: tuple[str, ...] = (), **data: Any) -> Task:
    """The task of that name; `labels` are those of a model that was trained on it, else the training set's.

    `data` are splits in memory (`train`, `dev`, `test`; None: there is none), each in the place of the file that the
    config would name. Raises `InputError` for what is no table, and for a split that is given as a file too.
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

            return tagging.of(config, labels, tables)
        case "swag" | "multiple_choice":
            from bert_jax.tasks import multiple_choice

            return multiple_choice.of(config, tables)
        case "multi_label":
            from bert_jax.tasks.multi_label import MultiLabel

            return MultiLabel(config, labels, tables)
    from bert_jax.tasks.classification import Classification

    return Classification(config, labels, tables)
