"""The encoder of BERT (arXiv 1810.04805, section 3), with the parameter names of google-research/bert.

Shapes in comments: B batch, S sequence, H hidden, N heads, D = H / N, I intermediate, L layers. The parameters of the
L layers are stacked on a leading axis and the layers run under one scan, so compile time doesn't grow with depth.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from bert_jax.config import ModelConfig
from bert_jax.models.arrays import AnyArray
from bert_jax.models.attention import attention, segment_ids
from bert_jax.models.dropout import Dropout
from bert_jax.models.layers import ACTIVATIONS, dense, initializer, layer_norm, padded
from bert_jax.models.names import LogicalAxes
from bert_jax.models.tpu_fused import CONTEXT

# A name for the results of products with weights.
PRODUCT = "product"
# What is kept for the backward pass.
REMAT_POLICIES = {
    "attention": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT, CONTEXT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rows_split(x):
    """Splits the rows of x, [B, ...], over the mesh axes that split the batch, where such a mesh is set.

    Else XLA may split the width instead, as `fsdp` splits that of the parameters, and gather the rows of all devices.
    """
    if not {"data", "fsdp"} <= set(jax.sharding.get_abstract_mesh().axis_names):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(("data", "fsdp")))


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalised."""

    config: ModelConfig

    def setup(self):
        c = self.config

        def table(rows, init=initializer(c)):
            return nn.Embed(rows, c.hidden_size, dtype=c.activation_dtype, embedding_init=init)

        self.word_embeddings = table(c.padded_vocab_size, padded(initializer(c), c.known_vocab_size))
        self.position_embeddings = table(c.position_offset + c.max_position_embeddings)
        self.token_type_embeddings = table(c.type_vocab_size)
        self.LayerNorm = layer_norm(c, name=None)
        self.dropout = Dropout(c.hidden_dropout_prob)

    def __call__(self, input_ids, token_type_ids, position_ids, deterministic: bool):
        if position_ids is None:  # The same for every row.
            position_ids = jnp.arange(input_ids.shape[-1])
        # [B, S] -> [B, S, H]
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        x = self.LayerNorm(x + self.position_embeddings(self.config.position_offset + position_ids))
        return rows_split(self.dropout(x, deterministic=deterministic))


def product(config: ModelConfig, features: int, name: str) -> Callable:
    """A dense layer whose result `dots` keeps, bias and all, in the form in which it is needed next."""
    layer = dense(config, features, name)
    return lambda x: checkpoint_name(layer(x), PRODUCT)


class DotProductAttention(nn.Module):
    """`attention` as a module without parameters. At initialisation, before its devices are known, it is plain."""

    config: ModelConfig
    deterministic: bool

    @nn.compact
    def __call__(self, query, key, value, segment_ids):
        c = dataclasses.replace(self.config, attention="plain") if self.is_initializing() else self.config
        dropout_key = Dropout(c.attention_probs_dropout_prob, name="dropout").key(self.deterministic)
        return attention(query, key, value, segment_ids, dropout_key, c)


class SelfAttention(nn.Module):
    """Multi-head attention of every token to the tokens of its segment (arXiv 1706.03762, section 3.2)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, segment_ids, deterministic: bool):
        c = self.config
        batch, length = segment_ids.key.shape
        heads = (batch, length, c.num_attention_heads, c.hidden_size // c.num_attention_heads)
        query, key, value = (
            # [B S, H] -> [B, S, N, D] -> [B, N, S, D]
            product(c, c.hidden_size, name)(x).reshape(heads).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        dot_product = rematerialised(c, DotProductAttention, "attention")(c, deterministic, name="dot_product")
        # [B, S, N, D] -> [B S, H]
        return dot_product(query, key, value, segment_ids).reshape(x.shape)


class ResidualOutput(nn.Module):
    """Projects back to the hidden size, drops out, adds the residual and normalises (post-LayerNorm)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, residual, deterministic: bool):
        c = self.config
        x = product(c, c.hidden_size, "dense")(x)
        x = Dropout(c.hidden_dropout_prob)(x, deterministic=deterministic)
        return layer_norm(c)(x + residual)


class Attention(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x, segment_ids, deterministic: bool):
        context = SelfAttention(self.config, name="self")(x, segment_ids, deterministic)
        return ResidualOutput(self.config, name="output")(context, x, deterministic)


class Intermediate(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        # [B S, H] -> [B S, I]
        return ACTIVATIONS[self.config.hidden_act](product(self.config, self.config.intermediate_size, "dense")(x))


class Layer(nn.Module):
    """One transformer layer, in the (carry, inputs) -> (carry, outputs) form that a scan takes."""

    config: ModelConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x, segment_ids):
        x = Attention(self.config, name="attention")(x, segment_ids, self.deterministic)
        intermediate = Intermediate(self.config, name="intermediate")(x)
        return rows_split(ResidualOutput(self.config, name="output")(intermediate, x, self.deterministic)), None


def rematerialised(config: ModelConfig, module, *names: str):
    """The module; if `config.remat` is among the names, its activations are recomputed in the backward pass.

    What "auto" means depends on the devices, which a model doesn't know (`training.program`): here, recompute nothing.
    """
    if config.remat not in names:
        return module
    # The two passes are separate loops. Only if they are unrolled, XLA needs a barrier, so as not to merge their work.
    return nn.remat(module, policy=REMAT_POLICIES[config.remat], prevent_cse=config.scan_unroll > 1)


class Layers(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x, segment_ids, deterministic: bool):
        scanned = nn.scan(
            rematerialised(self.config, Layer, "dots", "full"),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.config.num_hidden_layers,
            unroll=self.config.scan_unroll,
        )
        # [B, S, H] -> [B S, H]: outside attention each token is independent of the others, and XLA's products of
        # matrices are faster, most of all in the backward pass on a CPU.
        flat, _ = scanned(self.config, deterministic, name="layer")(x.reshape(-1, x.shape[-1]), segment_ids)
        return flat.reshape(x.shape)


class Encoder(nn.Module):
    """Embeddings and layers: token ids to one vector for each token, and the pooled vector of [CLS].

    Call with `input_ids`, `token_type_ids`, `attention_mask` [batch, sequence], int32 (mask: 1 token, 0 padding); for
    rows of several texts also with `position_ids` (from 0 in each text) and `sequence_ids` (a number for each text): a
    token then attends only to tokens with the same sequence id. Returns `(hidden, pooled)` in the compute type:
    [batch, sequence, hidden], and [batch, hidden] or, where `first_tokens` [batch, texts] has the positions at which
    the texts of a row begin, [batch, texts, hidden]; `pooled` is None where `pooler` is False. Every id must be below
    its table's size: JAX clamps larger ones silently.
    """

    config: ModelConfig
    pooler: bool = True

    def setup(self):
        self.embeddings = Embeddings(self.config)
        self.encoder = Layers(self.config)
        if self.pooler:
            self.pooler_dense = dense(self.config, self.config.hidden_size, "pooler")

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        token_type_ids: Int[AnyArray, "batch length"],
        attention_mask: Int[AnyArray, "batch length"],
        position_ids: Int[AnyArray, "batch length"] | None = None,
        sequence_ids: Int[AnyArray, "batch length"] | None = None,
        first_tokens: Int[AnyArray, "batch texts"] | None = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "batch length hidden"], Float[Array, "batch *texts hidden"] | None]:
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, deterministic)
        hidden = self.encoder(hidden, segment_ids(attention_mask, sequence_ids), deterministic)
        if not self.pooler:
            return hidden, None
        return hidden, jnp.tanh(self.pooler_dense(first_vectors(hidden, first_tokens)))


def first_vectors(
    hidden: Float[Array, "batch length hidden"], first_tokens: Int[AnyArray, "batch texts"] | None = None
) -> Float[Array, "batch *texts hidden"]:
    """The vector of each text's first token, in rows of one text or several."""
    # [B, S, H] -> [B, H], or [B, texts, H]
    return hidden[:, 0] if first_tokens is None else jnp.take_along_axis(hidden, first_tokens[..., None], axis=1)


def flops_per_token(model: ModelConfig, length: int, predictions: int) -> float:
    """`Architecture.flops_per_token` of this encoder; the only head whose products are counted is the masked LM."""
    layers, hidden, inner = model.num_hidden_layers, model.hidden_size, model.intermediate_size
    encoder = 6 * layers * (4 * hidden**2 + 2 * hidden * inner) + 12 * layers * hidden * length
    return encoder + 6 * (hidden * model.known_vocab_size + hidden**2) * predictions / length


# `Architecture.logical_axes` of this encoder.
LOGICAL_AXES: LogicalAxes = (
    (r"word_embeddings/embedding", ("vocabulary", "hidden")),
    (r"(position|token_type)_embeddings/embedding", (None, "hidden")),
    (r"self/(query|key|value)/kernel", ("layer", "hidden", "heads")),
    (r"self/(query|key|value)/bias", ("layer", "vector")),
    (r"layer/attention/output/dense/kernel", ("layer", "heads", "hidden")),
    (r"layer/intermediate/dense/kernel", ("layer", "hidden", "intermediate")),
    (r"layer/intermediate/dense/bias", ("layer", "vector")),
    (r"layer/output/dense/kernel", ("layer", "intermediate", "hidden")),
    (r"layer/.*(bias|scale)", ("layer", "hidden")),
    (r"pooler/kernel", ("hidden", None)),
)
