"""What programs run on, and how they are compiled, kept, and given their memory."""

import ctypes
import os
import sys
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.config import InputError, RunConfig, first_line

# On a processor XLA makes one kernel of attention's two products and the softmax between them (YNNPACK's), which takes
# up to three times as long as the parts where texts are short; other products are quicker without YNNPACK too.
WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
LONGEST_WITHOUT_YNNPACK = 128

# Where libtpu is installed and no TPU is here, JAX loads it all the same; without these it complains on standard error.
NO_TPU = {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-1"}

# Of glibc's malloc.h: the number of blocks that the system is asked for one by one, and from which size on the end of
# the heap is given back to it.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def find_devices() -> None:
    """Before anything else asks JAX for them: raises `InputError` where it can't use those that it is told to."""
    if os.environ.get("TPU_SKIP_MDS_QUERY"):  # JAX sets it where it sees no TPU.
        for name, value in NO_TPU.items():
            os.environ.setdefault(name, value)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        # For cuda without a GPU it is an assertion, without a word.
        why = first_line(error).partition(": ")[2].partition(" (")[0].rstrip(".") or "JAX sees none"
        if asked := os.environ.get("JAX_PLATFORMS"):
            remedy = "unset it to run on what is here, or install JAX for that device: pip install 'bert-jax[cuda12]'"
            raise InputError(f"JAX_PLATFORMS={asked}: no such device ({why}); {remedy}, [cuda13] or [tpu]") from error
        raise InputError(f"a device can't be used ({why}); JAX_PLATFORMS=cpu runs without it") from error


def begin() -> None:
    """What each command needs of JAX: its devices, and numbers of 32 bits, of which checkpoints are made."""
    find_devices()
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]  # Options are made as JAX is imported.
        if jax.process_index() == 0:
            print("JAX_ENABLE_X64 is left out of account: results and checkpoints are of 32 bits", file=sys.stderr)
        jax.config.update("jax_enable_x64", False)


def set_up(run: RunConfig = RunConfig()) -> None:
    """`begin`, where compiled programs are kept and, on a processor, their memory."""
    if run.compilation_cache is not None:
        jax.config.update("jax_compilation_cache_dir", run.compilation_cache)
    # On a processor steps then run in this thread, whose heap can grow without end, unlike that of others.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    begin()
    if jax.default_backend() == "cpu":
        _keep_freed_memory()


def devices() -> str:
    """What a run is on: number, kind and platform of all devices, and the processes that hold them."""
    first, processes = jax.devices()[0], jax.process_count()
    platform = f" ({first.platform})" if first.platform != first.device_kind.lower() else ""
    return f"{jax.device_count()} x {first.device_kind}{platform}" + (f", {processes} processes" * (processes > 1))


def _keep_freed_memory() -> None:
    """For the next step, instead of giving it back to the system, which then takes up to a third of a step to clear it.

    That is the temporaries of XLA's programs: a block of hundreds of MB each. Only glibc has to be asked.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def options(length: int, platform: str) -> dict[str, str] | None:
    """The compiler's, for sequences of this length."""
    return WITHOUT_YNNPACK if platform == "cpu" and length <= LONGEST_WITHOUT_YNNPACK else None


def jitted(function: Callable, mesh: Mesh) -> Callable[[int], jax.stages.Wrapped]:
    """`jax.jit` as is best for sequences of a length: `jitted(f, mesh)(128)(x)` is f(x), all of it on every device."""
    everywhere, platform = NamedSharding(mesh, PartitionSpec()), mesh.devices.flat[0].platform

    def compiled(length: int) -> jax.stages.Wrapped:
        return jax.jit(function, out_shardings=everywhere, compiler_options=options(length, platform))

    short, long = compiled(1), compiled(LONGEST_WITHOUT_YNNPACK + 1)
    return lambda length: long if length > LONGEST_WITHOUT_YNNPACK else short
