"""Attention of each token to those of its own segment: one function, and the backends that compute it.

Shapes in comments: B batch, N heads, S sequence, D head size.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bert_jax.config import InputError, ModelConfig
from bert_jax.config.checks import did_you_mean
from bert_jax.models.dropout import dropout
from bert_jax.models.tpu_flash import tpu_flash, tpu_flash_flops

# Added to the attention scores of padding; as in the original, finite, so that a row of padding only stays finite.
MASK_ADDER = -10_000.0
# A segment that no query is of.
NOWHERE = -2
# In `jax.Device.device_kind`.
TPU_V6E = ("TPU v6 lite", "TPU v6e")


class SegmentIds(NamedTuple):
    """Which segment each token is of: a query attends to the keys of its own. int32."""

    query: jax.Array
    """[batch, length]; or [1, 1], where all queries are of one segment."""
    key: jax.Array
    """[batch, length]; of padding a number that no query has."""


def segment_ids(attention_mask, sequence_ids=None) -> SegmentIds:
    """Those of rows of one text, or of several with their sequence ids (from -1 on), [batch, length] each."""
    if sequence_ids is None:
        return SegmentIds(jnp.ones((1, 1), jnp.int32), attention_mask)
    return SegmentIds(sequence_ids, jnp.where(attention_mask, sequence_ids, NOWHERE))


class Call(NamedTuple):
    """What a backend is asked to compute."""

    config: ModelConfig
    length: int
    """Tokens of a row."""
    dropout: bool
    """Whether probabilities are dropped."""
    platform: str
    """cpu, gpu or tpu."""


def _no_problems(call: Call) -> Iterator[tuple[str, str]]:
    return iter(())


def _no_flops(name: str, operands: Sequence[tuple[int, ...]]) -> float | None:
    return None


@dataclass(frozen=True)
class Backend:
    """A way to compute attention."""

    compute: Callable[..., jax.Array]
    """Takes and returns what `attention` does. What a query gets that no key is in the segment of is its own."""
    problems: Callable[[Call], Iterator[tuple[str, str]]] = _no_problems
    """Fields of a model's config that it doesn't take in a call, with what is wrong and what to do."""
    flops: Callable[[str, Sequence[tuple[int, ...]]], float | None] = _no_flops
    """Of a custom call in a compiled program, by the name of the operation and the shapes of its operands: the FLOPs
    where it is a kernel of this backend, else None. Products that XLA itself compiles are counted without it."""


def plain(query, key, value, segment_ids: SegmentIds, dropout_key, config: ModelConfig):
    """Scores, softmax and mean, as written in the paper: XLA makes of them what it can."""
    # [B, S] -> [B, 1, S, S], or [B, 1, 1, S] where it is the same for every query: the same for every head.
    visible = segment_ids.query[:, None, :, None] == segment_ids.key[:, None, None, :]
    mask_adder = (1.0 - visible) * MASK_ADDER
    # [B, N, S, D] x [B, N, S, D] -> [B, N, S, S]
    scores = jnp.einsum("bnqd,bnkd->bnqk", query, key, preferred_element_type=jnp.float32)
    scores = _apart(config, scores / math.sqrt(query.shape[-1]) + mask_adder)
    probabilities = dropout(jax.nn.softmax(scores), config.attention_probs_dropout_prob, dropout_key)
    # [B, N, S, S] x [B, N, S, D] -> [B, S, N, D]
    return jnp.einsum("bnqk,bnkd->bqnd", probabilities.astype(value.dtype), value)


def _apart(config: ModelConfig, scores):
    """The scores, on a TPU v6e kept out of the products that they are computed again for.

    Fused with those, libtpu's compiler overflows its stack (0.0.42, at length 512); others are up to 5 % faster so.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    again = config.remat not in ("auto", "none") and device is not None
    return jax.lax.optimization_barrier(scores) if again and device.device_kind in TPU_V6E else scores


def _problems_of_tpu_flash(call: Call) -> Iterator[tuple[str, str]]:
    if call.platform != "tpu":
        yield "attention", f"is tpu_flash, a kernel for TPUs, and this is a {call.platform}; make it plain"
    if call.dropout:
        rate = call.config.attention_probs_dropout_prob
        yield "attention_probs_dropout_prob", f"is {rate}, but tpu_flash drops nothing; make it 0, or attention plain"


# By `ModelConfig.attention`. Whoever brings another adds it to these.
ATTENTION: dict[str, Backend] = {
    "plain": Backend(plain),
    "tpu_flash": Backend(tpu_flash, _problems_of_tpu_flash, tpu_flash_flops),
}


def backend_of(config: ModelConfig) -> Backend:
    """Raises `InputError` where there is none of that name."""
    if config.attention not in ATTENTION:
        raise InputError(f"model.attention: is {config.attention!r}; {did_you_mean(config.attention, ATTENTION)}")
    return ATTENTION[config.attention]


def attention(
    query: Float[Array, "batch heads length size"],
    key: Float[Array, "batch heads length size"],
    value: Float[Array, "batch heads length size"],
    segment_ids: SegmentIds,
    dropout_key: Key[Array, ""] | None,
    config: ModelConfig,
) -> Float[Array, "batch length heads size"]:
    """Each query's mean of the values of its segment, weighted by the softmax of queries times keys over the root of
    the head size (arXiv 1706.03762, section 3.2.1), by the backend that the config names.

    Args:
      query, key, value: in the compute type.
      segment_ids: which queries see which keys.
      dropout_key: of the probabilities' dropout, at `config.attention_probs_dropout_prob`; None: nothing is dropped.

    Raises:
      InputError: the backend doesn't take this, by field and remedy.
    """
    backend = backend_of(config)
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = device.platform if device is not None else jax.default_backend()
    for name, problem in backend.problems(Call(config, query.shape[2], dropout_key is not None, platform)):
        raise InputError(f"model.{name}: {problem}")
    return backend.compute(query, key, value, segment_ids, dropout_key, config)
