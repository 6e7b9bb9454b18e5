"""How programs are compiled, kept, and given their memory."""

import ctypes

import jax

from bert_jax.config import RunConfig

# On a processor XLA makes one kernel of attention's two products and the softmax between them (YNNPACK's), which takes
# up to three times as long as the parts where texts are short; other products are quicker without YNNPACK too.
WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
LONGEST_WITHOUT_YNNPACK = 128


# Of glibc's malloc.h: the number of blocks that the system is asked for one by one, and from which size on the end of
# the heap is given back to it.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def set_up(run: RunConfig) -> None:
    """Where compiled programs are kept and, on a processor, their memory; before the first device is asked for."""
    if run.compilation_cache is not None:
        jax.config.update("jax_compilation_cache_dir", run.compilation_cache)
    # On a processor steps then run in this thread, whose heap can grow without end, unlike that of others.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() == "cpu":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """For the next step, instead of giving it back to the system, which then takes up to a third of a step to clear it.

    That is the temporaries of XLA's programs: a block of hundreds of MB each. Only glibc has to be asked.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def options(length: int) -> dict[str, str] | None:
    """The compiler's, for sequences of this length."""
    return WITHOUT_YNNPACK if jax.default_backend() == "cpu" and length <= LONGEST_WITHOUT_YNNPACK else None


def jitted(function):
    """`jax.jit`, compiled as is best for a length, which is given before the function's own arguments."""
    short, long = jax.jit(function, compiler_options=options(1)), jax.jit(function)
    return lambda length, *args, **kwargs: (short if options(length) else long)(*args, **kwargs)
