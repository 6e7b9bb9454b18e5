"""What encoders and heads are made of: products, norms, activations, and how their weights begin."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.config import ModelConfig


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x times the normal distribution's share below x, by erf."""
    if x.dtype != jnp.float32:
        return jax.nn.gelu(x, approximate=False)  # By erfc: 1 + erf would have no digits left of a negative x's share.
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))  # As torch's; on a processor in half of erfc's time.


ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


def dense(config: ModelConfig, features: int, name: str) -> nn.Dense:
    """A product with bias in the config's compute type, weights from a truncated normal."""
    return nn.Dense(features, dtype=config.dtype, kernel_init=initializer(config), name=name)


def initializer(config: ModelConfig):
    """Truncated normal, cut at two deviations and not rescaled, as the original's."""

    def init(key, shape, dtype=jnp.float32):
        return config.initializer_range * jax.random.truncated_normal(key, -2, 2, shape, dtype)

    return init


def padded(init, rows: int):
    """Initialises the first `rows` rows, and 0 in those that only fill up."""

    def padded_init(key, shape, dtype=jnp.float32):
        values = init(key, (rows, *shape[1:]), dtype)
        return jnp.pad(values, [(0, shape[0] - rows), *[(0, 0)] * (len(shape) - 1)])

    return padded_init


def layer_norm(config: ModelConfig, name: str | None = "LayerNorm") -> nn.LayerNorm:
    """LayerNorm with float32 statistics by the two-pass formula: the fast one loses digits where the mean is large."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=config.dtype, use_fast_variance=False, name=name)
