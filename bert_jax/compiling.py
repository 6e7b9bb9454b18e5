"""How programs are compiled, and kept."""

import jax

# On a processor XLA makes one kernel of attention's two products and the softmax between them (YNNPACK's), which takes
# up to three times as long as the parts where texts are short; other products are quicker without YNNPACK too.
WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
LONGEST_WITHOUT_YNNPACK = 128


def use_cache(folder: str | None) -> None:
    """Keeps compiled programs there, and takes them from there; to be called before anything is compiled."""
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", folder)


def options(length: int) -> dict[str, str] | None:
    """The compiler's, for sequences of this length."""
    return WITHOUT_YNNPACK if jax.default_backend() == "cpu" and length <= LONGEST_WITHOUT_YNNPACK else None


def jitted(function):
    """`jax.jit`, compiled as is best for a length, which is given before the function's own arguments."""
    short, long = jax.jit(function, compiler_options=options(1)), jax.jit(function)
    return lambda length, *args, **kwargs: (short if options(length) else long)(*args, **kwargs)
