"""Attention of each token to the tokens of its own segment: one function, and the backends that compute it.

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
from bert_jax.models.tpu_fused import MASK_ADDER, MOST_SCORES, longest_row, tpu_fused, tpu_fused_flops

# The segment of keys that are padding: no query belongs to it.
PADDING = -2
# Values of `jax.Device.device_kind`.
TPU_V6E = ("TPU v6 lite", "TPU v6e")


class SegmentIds(NamedTuple):
    """The segment that each token belongs to: a query attends to the keys of its own segment. int32."""

    query: jax.Array
    """[batch, length]; or [1, 1] if all queries belong to one segment."""
    key: jax.Array
    """[batch, length]; padding has a number that no query has."""


def segment_ids(attention_mask, sequence_ids=None) -> SegmentIds:
    """The segments of rows with one text or, given sequence ids (from -1), with several. Arguments: [batch, length]."""
    if sequence_ids is None:
        return SegmentIds(jnp.ones((1, 1), jnp.int32), attention_mask)
    return SegmentIds(sequence_ids, jnp.where(attention_mask, sequence_ids, PADDING))


class Call(NamedTuple):
    """What a backend is asked to compute, as far as the backend may refuse it."""

    config: ModelConfig
    length: int
    """The number of positions in a row."""
    dropout: bool
    """Whether the probabilities have dropout."""
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
    """Takes and returns what `attention` does. The result for a query whose segment has no keys is arbitrary."""
    problems: Callable[[Call], Iterator[tuple[str, str]]] = _no_problems
    """The fields of the model's config that it doesn't support in this call, each with the problem and the remedy."""
    flops: Callable[[str, Sequence[tuple[int, ...]]], float | None] = _no_flops
    """The FLOPs of a custom call in a compiled program, from the operation's name and its operands' shapes; None if it
    isn't a kernel of this backend. Products that XLA itself compiles are counted without this function."""


def plain(query, key, value, segment_ids: SegmentIds, dropout_key, config: ModelConfig):
    """Scores, softmax and weighted mean, as in the paper; optimising them is left to XLA."""
    # [B, S] -> [B, 1, S, S], or [B, 1, 1, S] if it is the same for every query. It is the same for every head.
    visible = segment_ids.query[:, None, :, None] == segment_ids.key[:, None, None, :]
    mask_adder = (1.0 - visible) * MASK_ADDER
    # [B, N, S, D] x [B, N, S, D] -> [B, N, S, S]
    scores = jnp.einsum("bnqd,bnkd->bnqk", query, key, preferred_element_type=jnp.float32)
    scores = _unfused(config, scores / math.sqrt(query.shape[-1]) + mask_adder)
    probabilities = dropout(jax.nn.softmax(scores), config.attention_probs_dropout_prob, dropout_key)
    # [B, N, S, S] x [B, N, S, D] -> [B, S, N, D]
    return jnp.einsum("bnqk,bnkd->bqnd", probabilities.astype(value.dtype), value)


def _unfused(config: ModelConfig, scores):
    """The scores; if the backward pass recomputes them on a TPU v6e, XLA is kept from fusing them with its products.

    Fused, they overflow the stack of libtpu's compiler (0.0.42, at length 512). Other chips are up to 5 % faster fused.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    recomputed = config.remat not in ("auto", "none") and device is not None
    return jax.lax.optimization_barrier(scores) if recomputed and device.device_kind in TPU_V6E else scores


def _problems_of_tpu_fused(call: Call) -> Iterator[tuple[str, str]]:
    if call.platform != "tpu":
        yield "attention", f"is tpu_fused, a kernel for TPUs, and this is a {call.platform}; make it plain"
    heads, tensor = call.config.num_attention_heads, jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
    if heads % tensor:
        whole = f"can't split {heads} heads over a mesh.tensor of {tensor}"
        yield "attention", f"is tpu_fused, which {whole}; make it plain"
    elif call.length > (longest := longest_row(call.config)):
        yield "attention", f"is tpu_fused, for rows of at most {longest:,} tokens, not {call.length:,}; make it plain"
    if call.length**2 > MOST_SCORES and call.length % 8:
        yield "attention", f"is tpu_fused, for long rows of a multiple of 8 tokens, not {call.length}; make it plain"


# The backends by `ModelConfig.attention`, which may also be `AUTO`. To have another, add it to this dict.
ATTENTION: dict[str, Backend] = {
    "plain": Backend(plain),
    "tpu_fused": Backend(tpu_fused, _problems_of_tpu_fused, tpu_fused_flops),
}


# The kernel in a training step for TPUs, plain elsewhere.
AUTO = "auto"


def check_backend(config: ModelConfig) -> None:
    """Raises `InputError` if the config names an unknown backend."""
    if config.attention not in (known := [AUTO, *ATTENTION]):
        raise InputError(f"model.attention: is {config.attention!r}; {did_you_mean(config.attention, known)}")


def known_flops(name: str, operands: Sequence[tuple[int, ...]]) -> float | None:
    """`Backend.flops` of whichever backend the kernel is of."""
    counts = (backend.flops(name, operands) for backend in ATTENTION.values())
    return next((flops for flops in counts if flops is not None), None)


def attention(
    query: Float[Array, "batch heads length size"],
    key: Float[Array, "batch heads length size"],
    value: Float[Array, "batch heads length size"],
    segment_ids: SegmentIds,
    dropout_key: Key[Array, ""] | None,
    config: ModelConfig,
) -> Float[Array, "batch length heads size"]:
    """For each query the mean of its segment's values, weighted by the softmax of query times key over the root of the
    head size (arXiv 1706.03762, section 3.2.1), by the backend that the config names.

    Args:
      query, key, value: in the compute type.
      segment_ids: which queries see which keys.
      dropout_key: the key for dropout of the probabilities, at `config.attention_probs_dropout_prob`; None: no dropout.

    Raises:
      InputError: the backend doesn't support this; the message names field and remedy.
    """
    # Set in training alone, where a kernel can be split over the mesh.
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = device.platform if device is not None else jax.default_backend()
    call = Call(config, query.shape[2], dropout_key is not None, platform)
    if config.attention != AUTO:
        backend = ATTENTION[config.attention]
    else:
        fused = ATTENTION["tpu_fused"]
        backend = fused if device is not None and not list(fused.problems(call)) else ATTENTION["plain"]
    for name, problem in backend.problems(call):
        raise InputError(f"model.{name}: {problem}")
    return backend.compute(query, key, value, segment_ids, dropout_key, config)
