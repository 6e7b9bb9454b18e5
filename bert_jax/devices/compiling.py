"""Sets up JAX: its devices, compiler options, and memory on a CPU."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.config import InputError, RunConfig, first_line
from bert_jax.config.models import Dtype
from bert_jax.devices.program_cache import keep_programs
from bert_jax.files.printable import say

# On a CPU, XLA fuses attention's two products and the softmax between them into one YNNPACK kernel, which takes up to
# three times as long as separate kernels for short texts; other products are faster without YNNPACK too.
WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
LONGEST_WITHOUT_YNNPACK = 128
# Only YNNPACK multiplies bfloat16 numbers by the CPU's instructions for them.
BFLOAT16_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

# On TPUs, sums of gradients over the mesh then go on behind the products of the backward pass, instead of before the
# next ones.
OVERLAPPED = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_enable_async_all_reduce": "true",
}

# If libtpu is installed on a machine without a TPU, JAX loads it all the same, and without these it prints errors.
NO_TPU = {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-1"}

# From glibc's malloc.h: the most blocks that are mapped one by one, and the size from which the free end of the heap is
# returned to the system.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def find_devices() -> None:
    """Has JAX find its devices, before any other use of them. Raises `InputError` where it can't use the given ones."""
    if os.environ.get("TPU_SKIP_MDS_QUERY"):  # JAX sets it where it sees no TPU.
        for name, value in NO_TPU.items():
            os.environ.setdefault(name, value)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        # For cuda without a GPU, JAX raises an assertion without a message.
        why = first_line(error).partition(": ")[2].partition(" (")[0].rstrip(".") or "JAX sees none"
        if asked := os.environ.get("JAX_PLATFORMS"):
            remedy = "unset it to run on what is here, or install JAX for that device: pip install 'bert-jax[cuda12]'"
            raise InputError(f"JAX_PLATFORMS={asked}: no such device ({why}); {remedy}, [cuda13] or [tpu]") from error
        raise InputError(f"a device can't be used ({why}); JAX_PLATFORMS=cpu runs without it") from error


def begin() -> None:
    """What each command needs of JAX: its devices, and 32-bit numbers, as in checkpoints."""
    find_devices()
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]  # JAX defines its options at import.
        if jax.process_index() == 0:
            say("JAX_ENABLE_X64 is ignored: results and checkpoints are of 32 bits", file=sys.stderr)
        jax.config.update("jax_enable_x64", False)


def set_up(run: RunConfig | None = None) -> None:
    """`begin`, and sets the handling of memory on a CPU and, for a run, the cache of compiled programs."""
    # On a CPU, steps then run in this thread, whose heap can grow without limit, unlike that of other threads.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    begin()
    if jax.default_backend() == "cpu":
        _keep_freed_memory()
    if run is not None:
        keep_programs(run.compilation_cache)


def devices() -> str:
    """A description of all devices: their number, kind and platform, and the number of processes that hold them."""
    first, processes = jax.devices()[0], jax.process_count()
    platform = f" ({first.platform})" if first.platform != first.device_kind.lower() else ""
    return f"{jax.device_count()} x {first.device_kind}{platform}" + (f", {processes} processes" * (processes > 1))


def _keep_freed_memory() -> None:
    """Keeps freed memory for the next step: the system would take up to a third of a step to clear it again.

    The memory is XLA's temporaries, blocks of hundreds of MB. Only glibc returns it by default.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def options(length: int, platform: str, dtype: Dtype = "float32") -> dict[str, str] | None:
    """The compiler options for sequences of this length and a type of products; None for the defaults."""
    if platform == "cpu" and dtype == "bfloat16_products":
        return BFLOAT16_PRODUCTS
    return WITHOUT_YNNPACK if platform == "cpu" and length <= LONGEST_WITHOUT_YNNPACK else None


def training_options(platform: str, dtype: Dtype) -> dict[str, str] | None:
    """The compiler options for training steps; None for the defaults."""
    if platform == "cpu" and dtype == "bfloat16_products":
        return BFLOAT16_PRODUCTS
    return OVERLAPPED if platform == "tpu" else None


def jitted(function: Callable, mesh: Mesh, dtype: Dtype) -> Callable[[int], jax.stages.Wrapped]:
    """`jax.jit` with the best `options` for a length: `jitted(f, mesh, dtype)(128)(x)` is f(x), whole everywhere."""
    everywhere, platform = NamedSharding(mesh, PartitionSpec()), mesh.devices.flat[0].platform

    def compiled(length: int) -> jax.stages.Wrapped:
        return jax.jit(function, out_shardings=everywhere, compiler_options=options(length, platform, dtype))

    short, long = compiled(1), compiled(LONGEST_WITHOUT_YNNPACK + 1)
    return lambda length: long if length > LONGEST_WITHOUT_YNNPACK else short


@contextlib.contextmanager
def shown_in(bar: Any) -> Iterator[None]:
    """Has a progress bar on a terminal say which program it waits for while JAX compiles. A log says no more for it."""
    if bar.disable or not bar.fp.isatty():
        yield
        return
    before = ""

    def note(event: str, duration_secs: float, **about: str | int) -> None:
        nonlocal before
        if event.endswith("/jaxpr_to_mlir_module_duration"):  # What comes before the compiler has ended.
            before = bar.postfix or ""
            name = str(about.get("fun_name", "")).removeprefix("jit(").removesuffix(")")
            bar.set_postfix_str(f"compiling {name}")
        elif event.endswith("/backend_compile_duration"):
            bar.set_postfix_str(before)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
