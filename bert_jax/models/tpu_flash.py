"""Attention by the flash kernel for TPUs that comes with JAX: scores stay on the chip, in blocks (arXiv 2205.14135)."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

# Positions in one of the kernel's blocks: rows are padded to a multiple of it.
BLOCK = 128
# The segment of these padding positions: their queries aren't read, and no other query sees their keys.
PADDING = -3
# The number of products as large as queries times keys in each kernel, by a part of the kernel's name: scores and mean
# in the forward pass; in the backward pass, the scores again and the gradients.
PRODUCTS = {"flash_mha_bwd_dkv": 4, "flash_mha_bwd_dq": 3, "flash_attention": 2}


def tpu_flash(query, key, value, segment_ids, dropout_key, config):
    """What `attention.attention` computes, without dropout."""
    # Imported here: nothing else needs Pallas, which takes a while to import.
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    def on_device(query, key, value, query_ids, key_ids):
        ids, scale = kernel.SegmentIds(query_ids, key_ids), 1 / math.sqrt(query.shape[-1])
        return kernel.flash_attention(query, key, value, segment_ids=ids, sm_scale=scale)

    # XLA can't split a kernel over the devices of a mesh.
    rows, heads = PartitionSpec(("data", "fsdp")), PartitionSpec(("data", "fsdp"), "tensor")
    if jax.sharding.get_abstract_mesh().axis_names:
        specs = heads, heads, heads, rows, rows
        on_device = jax.shard_map(on_device, in_specs=specs, out_specs=heads, check_vma=False)

    length = query.shape[2]
    padding = -length % BLOCK
    padded = [jnp.pad(x, [(0, 0), (0, 0), (0, padding), (0, 0)]) for x in (query, key, value)]
    query_ids = jnp.broadcast_to(segment_ids.query, segment_ids.key.shape)
    ids = [jnp.pad(x, [(0, 0), (0, padding)], constant_values=PADDING) for x in (query_ids, segment_ids.key)]
    # [B, N, S, D] -> [B, S, N, D]
    return on_device(*padded, *ids)[:, :, :length].swapaxes(1, 2)


def tpu_flash_flops(name: str, operands: Sequence[tuple[int, ...]]) -> float | None:
    """`Backend.flops` of the kernels: one in the forward pass, two in the backward pass."""
    products = next((n for part, n in PRODUCTS.items() if part in name), None)
    if products is None:
        return None
    batch, heads, length, size = operands[0]
    return 2.0 * products * batch * heads * length**2 * size
