"""How the forward pass is compiled."""

import jax

# On a processor XLA makes one kernel of attention's two products and the softmax between them (YNNPACK's), which takes
# up to three times as long as the parts where texts are short; other products are quicker without YNNPACK too.
WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
LONGEST_WITHOUT_YNNPACK = 128


def options(length: int) -> dict[str, str] | None:
    """The compiler's, for sequences of this length."""
    return WITHOUT_YNNPACK if jax.default_backend() == "cpu" and length <= LONGEST_WITHOUT_YNNPACK else None


def jitted(function):
    """`jax.jit`, compiled as is best for a length, which is given before the function's own arguments."""
    short, long = jax.jit(function, compiler_options=options(1)), jax.jit(function)
    return lambda length, *args, **kwargs: (short if options(length) else long)(*args, **kwargs)
