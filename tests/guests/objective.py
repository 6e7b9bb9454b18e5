"""Objectives from outside: one that needs another model's parameters, and one whose sums don't add up over parts."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

import bert_jax
from bert_jax.config import FinetuneConfig
from bert_jax.models import Model, forward, losses, make_model
from bert_jax.objectives import OBJECTIVES

teacher = functools.cache(bert_jax.load)


@dataclass(frozen=True)
class Distillation:
    """The divergence of the model's classes from a teacher's (arXiv 1503.02531)."""

    model: Model
    folder: str = "teacher"
    temperature: float = 2.0
    additive = True

    def constants(self):
        return teacher(self.folder).params

    def counts(self, batch):
        return {"distilled": losses.count_of_labels(batch["labels"])}

    def sums(self, params, constants, batch, dropout_key=None):
        knows = make_model(teacher(self.folder).config, teacher(self.folder).head)
        models = ((knows, constants, None), (self.model, params, dropout_key))
        target, log = (jax.nn.log_softmax(forward(*model[:2], batch, model[2]) / self.temperature) for model in models)
        weights = (batch["labels"] >= 0).astype(jnp.float32)
        divergences = jnp.sum(jnp.exp(target) * (target - log), -1) * self.temperature**2
        return {"distilled_loss": jnp.sum(divergences * weights), "distilled_count": jnp.sum(weights)}


@dataclass(frozen=True)
class Contrastive:
    """Each text is nearest to itself under another dropout, of all texts of the batch (arXiv 2104.08821)."""

    model: Model
    temperature: float = 0.05
    additive = False

    def constants(self):
        return ()

    def counts(self, batch):
        return {"contrastive": losses.count_of_labels(batch["labels"])}

    def sums(self, params, constants, batch, dropout_key=None):
        weights = (batch["labels"].reshape(-1) >= 0).astype(jnp.float32)
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        outputs = [forward(self.model, params, batch, key).reshape(len(weights), -1) for key in keys]
        first, second = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in outputs)
        scores = jnp.where(weights > 0, first @ second.T / self.temperature, jnp.finfo(jnp.float32).min)
        return losses.cross_entropy("contrastive", scores, jnp.arange(len(weights)), weights)


OBJECTIVES["distillation"] = Distillation
OBJECTIVES["contrastive"] = Contrastive


def get_config():
    return FinetuneConfig(objective="distillation", sequence_length=16, batch_size=8, epochs=1)
