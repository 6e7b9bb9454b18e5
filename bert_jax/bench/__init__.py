"""Measurements against another library, in alternating rounds of one run: on a shared machine only ratios tell much."""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, Literal

from bert_jax.config.models import Dtype

Way = Literal["eager", "compiled", "eager-bf16", "compiled-bf16"]
"""How torch trains the peer: as it is or by `torch.compile`, in float32 or in bf16 by autocast."""


def of_a_peer() -> dict[str, str]:
    """The environment of a peer's process: whatever a model's folder names, as a kernel, nothing is fetched from the
    Hub and run."""
    return os.environ | {"HF_HUB_OFFLINE": "1"}


def compile_seconds() -> list[float]:
    """A list to which JAX appends the seconds of each program that it compiles from now on."""
    import jax

    seconds: list[float] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    return seconds


def compiled_here(config: Any) -> Any:
    """The config without the user's cache of programs, which would hide what compiling takes; one that is asked for
    stays."""
    import jax

    run, options = config.run, jax.config.values
    if run.compilation_cache is None and options["jax_compilation_cache_dir"] is None:
        run = dataclasses.replace(run, compilation_cache="")
    return dataclasses.replace(config, run=run)


def product(dtype: Dtype) -> Any:
    """A compiled function (x, weights, bias) -> x @ weights + bias, by a program's products of that type."""
    import jax

    from bert_jax.devices.compiling import options
    from bert_jax.models.layers import bfloat16_product

    def multiply(x, weights, bias):
        return (bfloat16_product(x, weights, 0) if dtype == "bfloat16_products" else x @ weights) + bias

    return jax.jit(multiply, compiler_options=options(1, jax.default_backend(), dtype))


def peak_memory() -> int:
    """The most bytes of main memory that this process has held; on Linux, since it was last forgotten."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    import resource  # Which Windows lacks.

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak_memory() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
