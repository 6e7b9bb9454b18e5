"""Attention for TPUs as one kernel, in Pallas: scores, softmax and dropout stay on the chip, forward and backward.

A row of BERT has few enough positions that all scores of a block of queries fit on the chip at once. Unlike flash
attention (arXiv 2205.14135), the kernel needs no running softmax, and its backward pass computes the scores once.
Dropout draws what `dropout` draws, by the same counters of Threefry: both drop the same probabilities, on any mesh.

Shapes in comments: B batch, N heads, S sequence, D head size; b queries and n heads of a block.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from bert_jax.config import ModelConfig
from bert_jax.models.dropout import DRAWS, draws_of_blocks

# The width of a TPU's registers. As many heads make a block as fill it, where their number allows that.
LANES = 128
# A kernel may hold 16 MiB: a few arrays of a head's scores in a block, in float32 and, twice, whole rows of a block's
# keys and values with their gradients. The most scores, and the most bytes of a row.
MOST_SCORES = 512 * 512
MOST_ROW_BYTES = 1 << 20
# Added to the scores of other segments' keys and of padding, by each backend. Finite, as in the original, so that a row
# of only padding stays finite.
MASK_ADDER = -10_000.0
# A name for the result: a policy of `jax.checkpoint` that keeps it saves the backward pass a second forward kernel.
CONTEXT = "attention_context"
# The number of products as large as queries times keys: scores and mean in the forward pass; in the backward pass the
# scores, the probabilities' gradient, and the gradients of query, key and value.
PRODUCTS = {"fused_attention_forward": 2, "fused_attention_backward": 5}


class Block(NamedTuple):
    """What a kernel is compiled for."""

    heads: int
    head_size: int
    queries: int
    dropped: int
    """Of `DRAWS` equally probable draws this many drop a probability; 0: no dropout."""


def tpu_fused(query, key, value, segment_ids, dropout_key, config):
    """What `attention.attention` computes."""
    batch, heads, length, size = query.shape
    dropped = 0 if dropout_key is None else round(config.attention_probs_dropout_prob * DRAWS)
    words = jnp.zeros(2, jnp.uint32) if dropout_key is None else jax.random.key_data(dropout_key)[:2]
    # [B, N, S, D] -> [B, S, N D], as the projections gave it: apart, heads of 64 would fill half of each register.
    flat = [x.swapaxes(1, 2).reshape(batch, length, heads * size) for x in (query, key, value)]
    query_ids = jnp.broadcast_to(segment_ids.query, segment_ids.key.shape)

    def on_device(query, key, value, query_ids, key_ids, rows, heads):
        # The draws are counted from the first row and the first head on this device.
        counters = jnp.concatenate([words, rows[:1], heads[:1]])
        block = _block(len(heads), size, length, dropped)
        return _attention(block, query, key, value, query_ids[:, :, None], key_ids[:, None, :], counters)

    # XLA can't split a kernel over the devices of a mesh.
    if jax.sharding.get_abstract_mesh().axis_names:
        rows, split = PartitionSpec(("data", "fsdp")), PartitionSpec(("data", "fsdp"), None, "tensor")
        specs = split, split, split, rows, rows, rows, PartitionSpec("tensor")
        on_device = jax.shard_map(on_device, in_specs=specs, out_specs=split, check_vma=False)
    inputs = *flat, query_ids, segment_ids.key, *(jnp.arange(n, dtype=jnp.uint32) for n in (batch, heads))
    return on_device(*inputs).reshape(batch, length, heads, size)


def longest_row(config: ModelConfig) -> int:
    """The most tokens in a row for which the kernels have room, on the mesh that is set."""
    heads = config.num_attention_heads // jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
    size = config.hidden_size // config.num_attention_heads
    width = _heads_together(heads, size) * size
    return MOST_ROW_BYTES // max(width * jnp.dtype(config.activation_dtype).itemsize, LANES * 4)


def tpu_fused_flops(name: str, operands: Sequence[tuple[int, ...]]) -> float | None:
    """`Backend.flops` of the kernels."""
    products = next((n for kernel, n in PRODUCTS.items() if kernel in name), None)
    if products is None:
        return None
    batch, length, width = operands[-1]
    return 2.0 * products * batch * length**2 * width


def _block(heads: int, head_size: int, length: int, dropped: int) -> Block:
    """The blocks for this many heads and positions on a device."""
    fitting = [n for n in range(8, length, 8) if length % n == 0 and n * length <= MOST_SCORES]
    return Block(
        _heads_together(heads, head_size),
        head_size,
        length if length**2 <= MOST_SCORES else max(fitting, default=length),
        dropped,
    )


def _heads_together(heads: int, size: int) -> int:
    """The number of heads in a block: the fewest that fill registers, or all."""
    return next((n for n in range(1, heads) if heads % n == 0 and n * size % LANES == 0), heads)


# ---- Kernels --------------------------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(block: Block, query, key, value, query_ids, key_ids, counters):
    """[B, S, N D] three times, [B, S, 1], [B, 1, S], [4] -> [B, S, N D]."""
    return _forward_pass(block, query, key, value, query_ids, key_ids, counters)[0]


def _forward_pass(block, query, key, value, query_ids, key_ids, counters):
    inputs = counters, query_ids, key_ids, query, key, value
    (context,) = _call("forward", _forward, block, inputs, ["query"])
    return checkpoint_name(context, CONTEXT), inputs


def _backward_pass(block, inputs, gradient):
    gradients = _call("backward", _backward, block, (*inputs, gradient), ["query", "key", "key"])
    return *gradients, None, None, None


_attention.defvjp(_forward_pass, _backward_pass)


def _call(name: str, kernel, block: Block, inputs, outputs: list[str]):
    """Calls a kernel for each row, block of heads and block of queries, the last one changing fastest.

    `outputs` says for each result whether it is in blocks of "query", or whole rows, like "key".
    """
    # Imported here: nothing else needs Pallas, which takes a while to import.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    batch, length, width = inputs[3].shape
    together = block.heads * block.head_size
    specs = {
        "counters": pl.BlockSpec(memory_space=pltpu.SMEM),
        "query_ids": pl.BlockSpec((None, block.queries, 1), lambda row, head, query: (row, query, 0)),
        "key_ids": pl.BlockSpec((None, 1, length), lambda row, head, query: (row, 0, 0)),
        "query": pl.BlockSpec((None, block.queries, together), lambda row, head, query: (row, query, head)),
        "key": pl.BlockSpec((None, length, together), lambda row, head, query: (row, 0, head)),
    }
    names = ["counters", "query_ids", "key_ids", "query", "key", "key", "query"][: len(inputs)]
    products = PRODUCTS[f"fused_attention_{name}"]
    return pl.pallas_call(
        partial(kernel, block),
        out_shape=[jax.ShapeDtypeStruct(inputs[3].shape, inputs[3].dtype) for _ in outputs],
        grid=(batch, width // together, length // block.queries),
        in_specs=[specs[name] for name in names],
        out_specs=[specs[name] for name in outputs],
        # Gradients of keys and values are summed over the queries in float32.
        scratch_shapes=[pltpu.VMEM((length, together), jnp.float32) for name in outputs if name == "key"],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * batch * length**2 * width,
            transcendentals=batch * length**2 * width // block.head_size,
            bytes_accessed=(len(inputs) - 3 + len(outputs)) * inputs[3].size * inputs[3].dtype.itemsize,
        ),
        name=f"fused_attention_{name}",
    )(*inputs)


def _forward(block: Block, counters, query_ids, key_ids, query, key, value, context):
    for head, at in _heads(block):
        weights, total = _softmax(block, query_ids, key_ids, query[:, at], key[:, at])
        kept, scale = _dropout(block, counters, head, weights.shape)
        # [b, S] x [S, D] -> [b, D]
        mean = _product(_where(kept, weights).astype(value.dtype), value[:, at], 1, 0)
        context[:, at] = (mean * (scale / total)).astype(context.dtype)


def _backward(block: Block, *refs):
    from jax.experimental import pallas as pl

    counters, query_ids, key_ids, query, key, value, gradient, *outputs, key_sum, value_sum = refs
    query_gradient, key_gradient, value_gradient = outputs

    @pl.when(pl.program_id(2) == 0)
    def _():
        key_sum[...] = jnp.zeros_like(key_sum)
        value_sum[...] = jnp.zeros_like(value_sum)

    for head, at in _heads(block):
        q, k, v, g = query[:, at], key[:, at], value[:, at], gradient[:, at]
        weights, total = _softmax(block, query_ids, key_ids, q, k)
        kept, scale = _dropout(block, counters, head, weights.shape)
        probabilities = weights / total
        # [b, S] x [b, D] -> [S, D]
        value_sum[:, at] += _product((_where(kept, probabilities) * scale).astype(g.dtype), g, 0, 0)
        # [b, D] x [S, D] -> [b, S]
        of_probabilities = _where(kept, _product(g, v, 1, 1)) * scale
        mean = jnp.sum(of_probabilities * probabilities, axis=-1, keepdims=True)
        of_scores = probabilities * (of_probabilities - mean) / math.sqrt(block.head_size)
        of_scores = of_scores.astype(q.dtype)
        # [b, S] x [S, D] -> [b, D], [b, S] x [b, D] -> [S, D]
        query_gradient[:, at] = _product(of_scores, k, 1, 0).astype(query_gradient.dtype)
        key_sum[:, at] += _product(of_scores, q, 0, 0)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        key_gradient[...] = key_sum[...].astype(key_gradient.dtype)
        value_gradient[...] = value_sum[...].astype(value_gradient.dtype)


def _heads(block: Block):
    """Yields the number of each head in the block, counted from the device's first, and the slice that it takes."""
    from jax.experimental import pallas as pl

    for n in range(block.heads):
        yield pl.program_id(1) * block.heads + n, pl.ds(n * block.head_size, block.head_size)


def _softmax(block: Block, query_ids, key_ids, query, key):
    """[b, D], [S, D] -> the softmax's weights [b, S] and their sums [b, 1], float32."""
    scores = _product(query, key, 1, 1) / math.sqrt(block.head_size)
    scores = jnp.where(query_ids[...] == key_ids[...], scores, scores + MASK_ADDER)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    return weights, jnp.sum(weights, axis=-1, keepdims=True)


def _dropout(block: Block, counters, head, shape: tuple[int, int]):
    """Which probabilities of the block stay, bool [b, S], and what they are multiplied with; None and 1 if all stay."""
    from jax.experimental import pallas as pl

    if not block.dropped:
        return None, 1.0
    queries, length = shape
    row = counters[2] + pl.program_id(0).astype(jnp.uint32)
    first = (counters[3] + head.astype(jnp.uint32)) * length + pl.program_id(2).astype(jnp.uint32) * queries
    blocks = -(-length // 4)
    within = jax.lax.broadcasted_iota(jnp.uint32, (queries, blocks), 0) + first
    within = within * blocks + jax.lax.broadcasted_iota(jnp.uint32, (queries, blocks), 1)
    draws = draws_of_blocks((counters[0], counters[1]), row, within)[:, :length]
    return draws.astype(jnp.int32) >= block.dropped, DRAWS / (DRAWS - block.dropped)


def _where(kept, x):
    return x if kept is None else jnp.where(kept, x, 0.0)


def _product(x, y, x_axis: int, y_axis: int):
    return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=jnp.float32)
