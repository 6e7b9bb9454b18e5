"""The objective of a model's own head, for pretraining and for tasks."""

import dataclasses
from typing import Any

from jaxtyping import Array, Key

from bert_jax.models import Batch, Model, Sums, forward


@dataclasses.dataclass(frozen=True)
class HeadObjective:
    """The loss of the model's kind of head (`bert_jax.models.Head.sums`)."""

    model: Model
    additive = True

    def constants(self) -> Any:
        return ()

    def counts(self, batch: Batch) -> Sums:
        return self.model.kind.counts(batch)

    def sums(self, params: dict, constants: Any, batch: Batch, dropout_key: Key[Array, ""] | None = None) -> Sums:
        outputs = forward(self.model, params, batch, dropout_key)
        return self.model.kind.sums(self.model.head, outputs, batch)
