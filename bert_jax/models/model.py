"""A model: an architecture's encoder with a head, as a pure function of (params, arrays)."""

import functools
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

    Call with `input_ids`, `token_type_ids`, `attention_mask` [batch, sequence], int32 (mask: 1 token, 0 padding), for
    multiple choice [batch, choices, sequence]. Heads that score the vocabulary also take `masked_lm_positions`
    [batch, predictions]. Rows of several texts need `position_ids` (from 0 in each text) and `sequence_ids` (a number
    for each text, so that none sees another); heads of texts then also `first_tokens` [batch, texts], the positions at
    which the texts begin. Returns the outputs that the head's class describes, float32. Every id must be below its
    table's size: JAX clamps larger ones silently.
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
        """The logical axis of each dimension of a parameter, by the end of its path: the first match counts. Parameters
        of the layers are stacked, so their first axis is "layer". Read by `devices.sharding`."""
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
        inputs = Inputs(hidden, pooled, mask, texts, first, words, masked_lm_positions, choices, deterministic)
        return kind.logits(self.config, self.head, inputs)


def make_model(config: ModelConfig, head: HeadConfig) -> Model:
    """The model of a config and a head. Raises `InputError` if the architecture or the kind of head is unknown, or the
    architecture doesn't have that head."""
    registry.check(config, head)
    return Model(config, head)


# One program, traced once for all who ask: each operation by itself would be compiled, which takes many seconds.
@functools.partial(jax.jit, static_argnums=0)
def init_params(model: Model, seed) -> dict:
    """Fresh parameters from a seed (a number or an int32 scalar), as nested dicts."""
    ids = jnp.zeros((1, 1, 8) if model.kind.choices else (1, 8), jnp.int32)
    positions = [ids[:, :1]] if model.kind.predicts else []
    return model.init(jax.random.key(seed), ids, ids, ids, *positions)["params"]


def param_shapes(model: Model) -> dict:
    """The shapes of the parameters, as nested dicts of `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(lambda: init_params(model, 0))


def forward(model: Model, params: dict, batch: Batch, dropout_key: Key[Array, ""] | None = None):
    """The model's outputs for a batch; with dropout if a key is given."""
    inputs: dict[str, Any] = {
        name: batch[name] for name in (*MODEL_INPUTS, *PACKED_INPUTS, "first_tokens") if name in batch
    }
    return model.apply(
        {"params": in_compute_type(model.config, params)},
        **inputs,
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )


def in_compute_type(config: ModelConfig, params: dict) -> dict:
    """The parameters, with the layers' matrices in the type in which they are multiplied.

    Converted before the scan over layers, not in it, so that their gradients are stacked in that type too, half as
    large in bfloat16, and read as float32 by the optimizer.
    """

    def converted(path, x):
        names = [key.key for key in path]
        return x.astype(jnp.bfloat16) if "layer" in names and names[-1] == "kernel" else x

    return params if config.dtype == "float32" else jax.tree_util.tree_map_with_path(converted, params)
