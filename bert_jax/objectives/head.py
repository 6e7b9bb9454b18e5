"""The objective of a model's own head: pretraining, and what tasks are learned by."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from bert_jax.models import Model, forward


@dataclasses.dataclass(frozen=True)
class HeadObjective:
    """The loss that the kind of the head has (`bert_jax.models.Head.sums`)."""

    model: Model
    additive = True

    def constants(self) -> Any:
        return ()

    def counts(self, batch) -> dict:
        return self.model.kind.counts(batch)

    def sums(self, params, constants, batch, dropout_key=None) -> dict:
        """With how many positions of the batch are `tokens`, of all `places`."""
        outputs = forward(self.model, params, batch, dropout_key)
        mask = batch["attention_mask"]
        sums = {"tokens": jnp.sum(mask), "places": jnp.array(mask.size)}
        return sums | self.model.kind.sums(self.model.head, outputs, batch)
