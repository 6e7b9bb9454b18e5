"""Programs compiled before the first step, and whether a device has the memory for them."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.config import InputError, first_line
from bert_jax.devices.chips import GIB


@dataclass(frozen=True)
class Ahead:
    """A program to compile before the first step."""

    name: str
    lowered: jax.stages.Lowered
    remedies: str
    """What makes it smaller, as the end of a message."""
    beside: int = 0
    """Bytes on a device of what lies there while the program runs, without being its argument."""


def compile_ahead(programs: Iterable[Ahead]) -> None:
    """Compiles the programs, and says so; the jitted functions that they were lowered from won't compile them again.

    (`jax.jit` keeps a compiled program for all later calls with arguments of the same shapes and shardings.)
    Raises `InputError` for the first program that needs more memory than a device has, where its backend tells.
    """
    limit = device_memory()
    for program in programs:
        _say(f"compiling {program.name}")
        start = time.perf_counter()
        with refusals(program.name, program.remedies):
            stats = program.lowered.compile().memory_analysis()
        took = f"  in {time.perf_counter() - start:.0f} s"
        if stats is None:  # The backend doesn't tell.
            _say(took)
            continue
        needed = stats.argument_size_in_bytes + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
        needed += stats.output_size_in_bytes - stats.alias_size_in_bytes + program.beside
        takes = f"takes {needed / GIB:.2f} GiB" + (f", a device has {limit / GIB:.2f}" if limit else " on a device")
        if limit and needed > limit:
            raise InputError(f"{program.name} {takes}; {program.remedies}")
        _say(f"{took}; it {takes}")
    # Processes compile for different times: here they wait as long as it takes, in the first step not half a minute.
    multihost_utils.sync_global_devices("all is compiled")


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)


@contextlib.contextmanager
def refusals(name: str, remedies: str) -> Iterator[None]:
    """Turns a compiler's or a device's "out of memory" into an `InputError` that says for what, and the remedies."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        kind, _, why = first_line(error).partition(": ")
        if kind != "RESOURCE_EXHAUSTED":
            raise
        raise InputError(f"{name}: {why.rstrip('.')}; {remedies}") from error


def device_memory() -> int | None:
    """Bytes that each device here has for programs and arrays; None where the backend doesn't tell, as a CPU's."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    return min(limits) or None


def bytes_on_a_device(arrays) -> int:
    """As the shapes' shardings split them, without the padding of layouts."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize
        for x in jax.tree.leaves(arrays)
    )
