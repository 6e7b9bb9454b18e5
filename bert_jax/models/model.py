"""A model: the encoder of an architecture with a head of a kind, a pure function of (params, arrays)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import registry
from bert_jax.models.architecture import Architecture
from bert_jax.models.arrays import AnyArray, Batch, Outputs
from bert_jax.models.heads.base import Head, Inputs
from bert_jax.models.names import LogicalAxes

MODEL_INPUTS = ("input_ids", "token_type_ids", "attention_mask", "masked_lm_positions")
# Batches with several texts in a row have these too.
PACKED_INPUTS = ("position_ids", "sequence_ids")


class Model(nn.Module):
    """The encoder of `config`, its parameters under the architecture's name, and the head beside it.

    Call with `input_ids`, `token_type_ids`, `attention_mask` [batch, sequence], int32 (mask: 1 token, 0 padding), of
    multiple choice [batch, choices, sequence]. Heads that score the vocabulary also take `masked_lm_positions`
    [batch, predictions]. Rows of several texts need `position_ids` (from 0 in each text) and `sequence_ids` (a number
    for each text, so that none sees another); heads of texts then also `first_tokens` [batch, texts], the positions at
    which the texts begin. Returns what the class of its head says, float32. Every id must be below its table's size:
    JAX clamps those that aren't, silently.
    """

    config: ModelConfig
    head: HeadConfig

    @property
    def architecture(self) -> Architecture:
        return registry.architecture_of(self.config)

    @property
    def kind(self) -> Head:
        return registry.head_of(self.config, self.head)

    @property
    def logical_axes(self) -> LogicalAxes:
        """What each dimension of a parameter is, by the end of its path: the first match counts. The layers' parameters
        are stacked, so theirs begin with "layer". Read by `devices.sharding`."""
        return (*self.architecture.logical_axes, *self.kind.logical_axes, (r"(bias|scale)", ("hidden",)))

    @nn.compact
    def __call__(
        self,
        input_ids: Int[AnyArray, "batch *choices length"],
        token_type_ids: Int[AnyArray, "batch *choices length"],
        attention_mask: Int[AnyArray, "batch *choices length"],
        masked_lm_positions: Int[AnyArray, "batch predictions"] | None = None,
        position_ids: Int[AnyArray, "batch *choices length"] | None = None,
        sequence_ids: Int[AnyArray, "batch *choices length"] | None = None,
        first_tokens: Int[AnyArray, "batch *choices texts"] | None = None,
        deterministic: bool = True,
    ) -> Outputs:
        kind, architecture = self.kind, self.architecture
        encoder = architecture.encoder(self.config, kind.pooler(self.head), name=architecture.name)

        def rows(x):
            """[B, C, S] -> [B C, S]: each choice is a row."""
            return x if x is None or x.ndim == 2 else x.reshape(-1, x.shape[-1])

        ids, types, positions = rows(input_ids), rows(token_type_ids), rows(position_ids)
        mask, texts, first = rows(attention_mask), rows(sequence_ids), rows(first_tokens)
        hidden, pooled = encoder(ids, types, mask, positions, texts, first, deterministic=deterministic)
        words = encoder.embeddings.word_embeddings.embedding if kind.predicts else None
        choices = input_ids.shape[1] if kind.choices else 1
        of_head = Inputs(hidden, pooled, mask, texts, first, words, masked_lm_positions, choices, deterministic)
        return kind.logits(self.config, self.head, of_head)


def make_model(config: ModelConfig, head: HeadConfig) -> Model:
    """Raises `InputError` where there is no such architecture or kind of head, or the one hasn't the other."""
    registry.check(config, head)
    return Model(config, head)


def init_params(model: Model, seed) -> dict:
    """Fresh parameters of a seed, a number or an int32 scalar, as nested dicts."""
    ids = jnp.zeros((1, 1, 8) if model.kind.choices else (1, 8), jnp.int32)
    positions = [ids[:, :1]] if model.kind.predicts else []
    return model.init(jax.random.key(seed), ids, ids, ids, *positions)["params"]


def forward(model: Model, params: dict, batch: Batch, dropout_key: Key[Array, ""] | None = None):
    """A head's outputs for a batch; with dropout where a key is given."""
    inputs: dict[str, Any] = {
        name: batch[name] for name in (*MODEL_INPUTS, *PACKED_INPUTS, "first_tokens") if name in batch
    }
    return model.apply(
        {"params": params},
        **inputs,
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
