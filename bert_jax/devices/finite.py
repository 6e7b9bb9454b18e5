"""Whether parameters are numbers."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.config import InputError
from bert_jax.devices.sharding import path_name

REMEDY = "bring weights from before they became so"


def check_finite(params: dict, where: object, remedy: str = REMEDY) -> None:
    """Raises `InputError` naming the first array with a NaN or an infinite number: every output would be NaN.

    Where arrays are spread over several processes, each process checks its part, and all raise the same error.
    """
    arrays = jax.tree.leaves_with_path(params)
    bad = next((number for number, (_, array) in enumerate(arrays) if not _is_finite(array)), len(arrays))
    if not all(getattr(array, "is_fully_addressable", True) for _, array in arrays):
        bad = int(multihost_utils.process_allgather(np.array(bad)).min())
    if bad < len(arrays):
        what = f"{path_name(arrays[bad][0])} has numbers that aren't finite (NaN or infinite)"
        raise InputError(f"{where}: {what}; {remedy}")


def _is_finite(array) -> bool:
    if not isinstance(array, jax.Array):
        return bool(np.isfinite(array).all())
    return all(np.isfinite(part.data).all() for part in array.addressable_shards if part.replica_id == 0)
