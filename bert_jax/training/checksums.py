"""Checksums of arrays' contents, the same wherever their parts lie: on one device, on a mesh, on several processes.

Each element is mixed with its position in the whole array, and the results are added up, in any order. The mixing is
one to one for each position: if a single element differs, so does the sum; if several differ, the probability that the
sum stays the same is 1 in 2^32.
"""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.devices.sharding import path_name

# Odd, so that multiplying by it is one to one: 2^32 over the golden ratio, as in Fibonacci hashing.
FACTOR = np.uint32(0x9E3779B1)
CHUNK = 1 << 15  # elements at once on a CPU, so that intermediate values stay in its cache.
ODD = 2 * np.arange(CHUNK, dtype=np.uint32) + 1


def checksums(tree) -> dict[str, str]:
    """The checksum of each array, by its path, as eight hexadecimal digits. All processes that hold parts must call it.

    Each accelerator reads the part that it holds: arrays aren't copied to the host, only the sums are.
    """
    arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    on_devices = {name: x for name, x in arrays.items() if not _is_on_host(x)}
    # One program, so that all processes compute the sums in the same order.
    sums = dict(zip(on_devices, np.asarray(_on_devices([*on_devices.values()])), strict=True)) if on_devices else {}
    with ThreadPoolExecutor() as pool:  # NumPy works without Python's lock.
        on_host = {name: np.asarray(x) for name, x in arrays.items() if name not in sums}
        sums |= dict(zip(on_host, pool.map(_on_host, on_host.values()), strict=True))
    return {name: f"{int(sums[name]):08x}" for name in arrays}


def _is_on_host(array) -> bool:
    """Whether all of the array is on CPUs of this process: NumPy then reads it sooner than a program is compiled."""
    if not isinstance(array, jax.Array):
        return True
    return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())


def _on_host(array: np.ndarray) -> int:
    bits, total = _bits(array), 0
    for start in range(0, bits.size, CHUNK):
        part = bits[start : start + CHUNK].astype(np.uint32, copy=False)
        mixed = _mixed(part, ODD[: part.size] + np.uint32(2 * start % (1 << 32)))
        total += int(mixed.sum(dtype=np.uint32))
    return total % (1 << 32)


def _bits(array: np.ndarray) -> np.ndarray:
    """The array as flat unsigned integers; a 64-bit element, which no device has, is two 32-bit integers."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(f"u{min(flat.itemsize, 4)}")


@jax.jit
def _on_devices(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([_on_device(array) for array in arrays])


def _on_device(array: jax.Array) -> jax.Array:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}").astype(jnp.uint32)
    positions, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        positions += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * np.uint32(stride % (1 << 32))
        stride *= bits.shape[axis]
    return _mixed(bits, 2 * positions + 1).sum(dtype=jnp.uint32)


def _mixed(bits, odd):
    """Mixes elements with their positions, one to one in `bits`: products with odd numbers, and a shift added by XOR.

    `odd` is twice the position, plus one. All arithmetic is modulo 2^32, and the same in NumPy and JAX.
    """
    bits = bits * FACTOR
    bits ^= bits >> np.uint32(15)
    bits *= odd
    return bits
