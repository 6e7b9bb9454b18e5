"""Downstream tasks, one file a family: reading, features, metrics, post-processing. No JAX."""

from bert_jax.config import TaskConfig
from bert_jax.tasks.base import Task


def make(config: TaskConfig, labels: tuple[str, ...] = ()) -> Task:
    """The task of that name; `labels` are those of a model that was trained on it, else the training file's."""
    match config.name:
        case "squad":
            from bert_jax.tasks.squad import Squad

            return Squad(config)
        case "ner" | "srl":
            from bert_jax.tasks import tagging

            return tagging.of(config, labels)
        case "swag" | "multiple_choice":
            from bert_jax.tasks import multiple_choice

            return multiple_choice.of(config, labels)
        case "multi_label":
            from bert_jax.tasks.multi_label import MultiLabel

            return MultiLabel(config, labels)
    from bert_jax.tasks.classification import Classification

    return Classification(config, labels)
