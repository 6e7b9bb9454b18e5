"""A kind of head from outside: a classifier of the mean of a text's vectors, and the task that learns it."""

import dataclasses

import jax.numpy as jnp

from bert_jax.config import FinetuneConfig, HeadConfig, TaskConfig
from bert_jax.models import HEADS, Head, names
from bert_jax.models.heads.base import Classifier, Output
from bert_jax.tasks import TASKS
from bert_jax.tasks.classification import Classification


def means(inputs):
    """The mean vector of each text's tokens: [B, H], or [B, T, H] with several texts in a row."""
    alone = inputs.first_tokens is None
    texts = jnp.arange(1 if alone else inputs.first_tokens.shape[-1])
    sequence_ids = inputs.attention_mask - 1 if alone else inputs.sequence_ids  # -1 for padding.
    own = (sequence_ids[:, None] == texts[:, None]).astype(jnp.float32)  # [B, T, S]
    vectors = own @ inputs.hidden / jnp.maximum(own.sum(-1, keepdims=True), 1)
    return vectors[:, 0] if alone else vectors


class MeanClassification(Head):
    kind = "mean_classification"
    outputs = (Output("logits", "text"),)
    use = "classify"
    suffix, pipeline = "ForMeanClassification", "text-classification"
    names = names.output("classifier/dense", "classifier")
    labelled = True

    def logits(self, config, head, inputs):
        classifier = Classifier(config, self.size(head), head.dropout, name="classifier")
        return classifier(means(inputs), inputs.deterministic)


class ByMeans(Classification):
    @property
    def head(self) -> HeadConfig:
        return dataclasses.replace(super().head, kind=MeanClassification.kind)


HEADS[MeanClassification.kind] = MeanClassification()
TASKS["by_means"] = ByMeans


def get_config():
    return FinetuneConfig(task=TaskConfig("by_means"), sequence_length=16, batch_size=8, epochs=1)
