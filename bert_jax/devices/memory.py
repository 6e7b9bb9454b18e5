"""Compiles programs before the first step, and checks that a device has the memory for them."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.config import InputError, first_line
from bert_jax.devices.chips import GIB
from bert_jax.files.printable import say


@dataclass(frozen=True)
class Ahead:
    """A program to compile before the first step."""

    name: str
    lowered: jax.stages.Lowered
    remedies: str
    """How to make it smaller, as the end of an error message."""
    beside: int = 0
    """Bytes on a device of arrays that stay there while the program runs but aren't its arguments."""


def compile_ahead(programs: Iterable[Ahead]) -> None:
    """Compiles the programs, with a line for each; their jitted functions won't compile them again.

    (`jax.jit` keeps a compiled program for later calls with arguments of the same shapes and shardings.)
    Raises `InputError` for the first program that needs more memory than a device has, if the backend tells that.
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
    # Processes take different times to compile. Here they wait for each other without limit; in the first step, only
    # for half a minute.
    multihost_utils.sync_global_devices("all is compiled")


def _say(line: str) -> None:
    if jax.process_index() == 0:
        say(line, flush=True)


@contextlib.contextmanager
def refusals(name: str, remedies: str) -> Iterator[None]:
    """Turns a compiler's or a device's "out of memory" into an `InputError` with the program and the remedies."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        kind, _, why = first_line(error).partition(": ")
        if kind != "RESOURCE_EXHAUSTED":
            raise
        raise InputError(f"{name}: {why.rstrip('.')}; {remedies}") from error


def device_memory() -> int | None:
    """Bytes that each device of this process has for programs and arrays; None if the backend (CPU) doesn't tell."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    return min(limits) or None


def bytes_on_a_device(arrays) -> int:
    """Bytes on one device, by the arrays' (or shapes') shardings, without the padding of layouts."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize
        for x in jax.tree.leaves(arrays)
    )
