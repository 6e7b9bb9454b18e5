"""Downstream tasks, one file a family: reading, features, metrics, post-processing. No JAX."""

from bert_jax.config import GLUE, TaskConfig
from bert_jax.tasks.base import Task


def make(config: TaskConfig, labels: tuple[str, ...] = ()) -> Task:
    """The task of that name; `labels` are those of a model that was trained on it, else the training file's."""
    if config.name in (*GLUE, "classification", "regression"):
        from bert_jax.tasks.classification import Classification

        return Classification(config, labels)
    raise NotImplementedError(config.name)
