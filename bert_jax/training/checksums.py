"""Checksums of what arrays hold, the same wherever their parts lie: on one device, on a mesh, on several processes.

Each element is mixed with its place in the whole array, and the results are added up, which may be done in any order.
The mixing is one to one for each place, so one element that differs always gives another sum; several that differ do
but for one case in 2^32.
"""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.devices.sharding import path_name

# Odd, so that a product with it loses nothing: 2^32 over the golden ratio, as in Fibonacci hashing.
FACTOR = np.uint32(0x9E3779B1)
CHUNK = 1 << 15  # elements at once on a CPU, so that what is computed stays in its cache.
ODD = 2 * np.arange(CHUNK, dtype=np.uint32) + 1


def checksums(tree) -> dict[str, str]:
    """The checksum of each array, by its path, as eight hexadecimal digits. All processes that hold parts must call it.

    On an accelerator each device reads what it holds: the arrays aren't copied, and only the sums are waited for.
    """
    arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    elsewhere = {name: x for name, x in arrays.items() if not _is_here(x)}
    # One program, so that all processes add up in one order.
    sums = dict(zip(elsewhere, np.asarray(_on_devices([*elsewhere.values()])), strict=True)) if elsewhere else {}
    with ThreadPoolExecutor() as pool:  # NumPy works without Python's lock.
        here = {name: np.asarray(x) for name, x in arrays.items() if name not in sums}
        sums |= dict(zip(here, pool.map(_on_host, here.values()), strict=True))
    return {name: f"{int(sums[name]):08x}" for name in arrays}


def _is_here(array) -> bool:
    """Whether NumPy can read it as it lies: on a CPU, where compiling takes longer than that, if all of it is here."""
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
    """The array as a list of whole numbers; of 64 bits there is none on a device, and here it is two of 32."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(f"u{min(flat.itemsize, 4)}")


@jax.jit
def _on_devices(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([_on_device(array) for array in arrays])


def _on_device(array: jax.Array) -> jax.Array:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}").astype(jnp.uint32)
    places, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        places += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * np.uint32(stride % (1 << 32))
        stride *= bits.shape[axis]
    return _mixed(bits, 2 * places + 1).sum(dtype=jnp.uint32)


def _mixed(bits, odd):
    """One to one in `bits`: products with odd numbers, and a shift added without carry. All is modulo 2^32.

    `odd` is twice the place, and one. The same for NumPy and JAX.
    """
    bits = bits * FACTOR
    bits ^= bits >> np.uint32(15)
    bits *= odd
    return bits
