"""Dropout whose random draws cost little: one evaluation of Threefry gives four of them.

JAX's own dropout evaluates Threefry for each number, on a CPU in a loop over whole arrays. Like JAX's, these draws
depend on key and shape alone, so they are the same on any mesh.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Constants of Threefry-2x32, 20 rounds (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011, s. 3.3).
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)
# A draw has 16 bits: rates are rounded to multiples of 1 / DRAWS.
DRAWS = 1 << 16


class Dropout(nn.Module):
    """`dropout` with a key of the module's own."""

    rate: float

    def __call__(self, x, deterministic: bool):
        return dropout(x, self.rate, self.key(deterministic))

    def key(self, deterministic: bool):
        """The key for its draws; None if it drops nothing."""
        return None if deterministic or not round(self.rate * DRAWS) else self.make_rng("dropout")


def dropout(x, rate: float, key):
    """Sets a share `rate` of the numbers to 0 and scales the others up, so that the expectation stays the same. If the
    key is None, nothing changes."""
    if key is None:
        return x
    dropped = round(rate * DRAWS)
    # Drawn once, for both passes: without the barrier XLA draws again wherever it fuses the draws with other work.
    kept = jax.lax.optimization_barrier(_draws(key, x.shape) >= dropped)
    return jnp.where(kept, x * (DRAWS / (DRAWS - dropped)), jnp.zeros((), x.dtype))


@functools.partial(jax.jit, static_argnums=1)  # Traced once for a shape, not in every layer.
def _draws(key, shape: tuple[int, ...]):
    """Uniform uint32 below `DRAWS`."""
    blocks = (*shape[:-1], -(-shape[-1] // 4))
    # One word counts the rows, the other the blocks in a row: a pod's batch has more blocks than 32 bits can count.
    rows, *inner = (jax.lax.broadcasted_iota(jnp.uint32, blocks, axis) for axis in range(len(blocks)))
    strides = (np.uint32(math.prod(blocks[axis:])) for axis in range(2, len(blocks) + 1))
    within = sum((i * n for i, n in zip(inner, strides, strict=True)), start=jnp.zeros_like(rows))
    return draws_of_blocks(jax.random.key_data(key), rows, within)[..., : shape[-1]]


def draws_of_blocks(key, rows, within):
    """Four uint32 draws below `DRAWS` for each block of four: [..., blocks] -> [..., 4 blocks], first all first draws.

    A block is counted by its row and by its place within the row, uint32; the key is two words.
    """
    first, second = threefry(key, rows, within)
    last = np.uint32(DRAWS - 1)
    return jnp.concatenate([first >> 16, first & last, second >> 16, second & last], axis=-1)


def threefry(key, first, second):
    """Threefry-2x32 of two uint32 arrays under the first two words of a key."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    first, second = first + keys[0], second + keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            first = first + second
            second = ((second << rotation) | (second >> (32 - rotation))) ^ first
        first, second = first + keys[(group + 1) % 3], second + keys[(group + 2) % 3] + np.uint32(group + 1)
    return first, second
