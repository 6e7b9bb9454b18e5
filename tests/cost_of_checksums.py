"""What checksums cost: saving and restoring BERT-Base with AdamW's moments, with and without, in alternating rounds.

python tests/cost_of_checksums.py [ROUNDS]
"""

import contextlib
import statistics
import sys
import tempfile
import time
from unittest import mock

import jax
import jax.numpy as jnp

from bert_jax.config import HeadConfig, RunConfig, model_preset
from bert_jax.convert import names
from bert_jax.training import checkpoints
from bert_jax.training.checkpoints import Checkpoints

WITHOUT = {"checksums": lambda tree: {}, "_compare": lambda arrays, checked: None}


def a_state() -> dict:
    shapes = names.shapes_of(model_preset("base", vocab_size=30_522), HeadConfig("pretraining"))
    key = jax.random.key(0)
    return {
        part: {n: jax.random.normal(key, x.shape, jnp.float32) for n, x in shapes.items()}
        for part in ("params", "mu", "nu")
    }


def main(rounds: int) -> None:
    state = a_state()
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)
    print(f"{size / 1e9:.2f} GB on {jax.devices()[0].device_kind}, medians of {rounds} rounds")
    seconds: dict = {}
    for number in range(2 * rounds):
        kind = ("with", "without")[(number + number // 2) % 2]  # Each goes first in every other round.
        patched = mock.patch.multiple(checkpoints, **WITHOUT) if kind == "without" else contextlib.nullcontext()
        with tempfile.TemporaryDirectory() as folder, patched:
            saving = Checkpoints(folder, RunConfig(), writing=True)
            began = time.perf_counter()
            saving.save(1, state, {}, {})
            returned = time.perf_counter()
            saving.close()
            written = time.perf_counter()
            jax.block_until_ready(Checkpoints(folder).restore(1, like))
            times = {
                "save returns": returned - began,
                "saved": written - began,
                "restored": time.perf_counter() - written,
            }
        for what, value in times.items():
            seconds.setdefault((what, kind), []).append(value)
    for what in ("save returns", "saved", "restored"):
        with_, without = (statistics.median(seconds[what, kind]) for kind in ("with", "without"))
        print(f"{what:14} {with_:6.2f} s with, {without:6.2f} s without: {with_ / without:.2f} times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
