"""Parts of encoders and heads: dense layers, norms, activations, and the initialisation of their weights."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.config import ModelConfig


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x times the probability that a standard normal variable is below x, by erf."""
    if x.dtype != jnp.float32:
        return _low_precision_gelu(x)
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))  # As torch does; on a CPU it takes half the time of erfc.


@jax.custom_jvp
def _low_precision_gelu(x):
    return jax.nn.gelu(x, approximate=False)  # By erfc: for a negative x, 1 + erf would lose all digits.


@_low_precision_gelu.defjvp
def _(primals, tangents):
    """Not by erfc: XLA would compute it once for value and slope, writing an array as large as x for both to read."""
    (x,), (dx,) = primals, tangents
    wide = x.astype(jnp.float32)
    density = jnp.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    slope = 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5))) + wide * density
    return _low_precision_gelu(x), slope.astype(x.dtype) * dx


ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


def dense(config: ModelConfig, features: int, name: str) -> nn.Dense:
    """A dense layer with bias, in the config's compute type; its weights begin as `initializer` draws them."""
    kinds: dict = dict(dtype=config.activation_dtype, kernel_init=initializer(config))
    if config.dtype == "bfloat16_products":
        kinds["dot_general"] = lambda x, kernel, dimensions, precision: bfloat16_product(x, kernel, 0)
    return nn.Dense(features, name=name, **kinds)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def bfloat16_product(x, weights, axis: int):
    """x [..., K] times weights, [K, N] if `axis` is 0 and [N, K] if it is 1, all float32, by products of bfloat16
    numbers that are added up in float32; so are the gradients."""
    return _multiplied(x, weights, (x.ndim - 1,), (axis,))


def _multiplied(a, b, a_axes: tuple[int, ...], b_axes: tuple[int, ...]):
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jax.lax.dot_general(a, b, ((a_axes, b_axes), ((), ())), preferred_element_type=jnp.float32)


def _forward(x, weights, axis: int):
    return bfloat16_product(x, weights, axis), (x.astype(jnp.bfloat16), weights.astype(jnp.bfloat16))


def _backward(axis: int, factors, gradient):
    x, weights = factors
    first, second = (a.reshape(-1, a.shape[-1]) for a in ((x, gradient) if axis == 0 else (gradient, x)))
    # XLA (0.10.2) would multiply a transposed factor in float32; with a row more, it is an array of its own.
    transposed = jnp.pad(first.astype(jnp.bfloat16).T, ((0, 1), (0, 0)))
    return _multiplied(gradient, weights, (x.ndim - 1,), (1 - axis,)), _multiplied(transposed, second, (1,), (0,))[:-1]


bfloat16_product.defvjp(_forward, _backward)


def initializer(config: ModelConfig):
    """Draws from a normal distribution cut at two standard deviations and not rescaled, as in the original."""

    def init(key, shape, dtype=jnp.float32):
        return config.initializer_range * jax.random.truncated_normal(key, -2, 2, shape, dtype)

    return init


def padded(init, rows: int):
    """Initialises the first `rows` rows with `init`; the rows of padding after them are 0."""

    def padded_init(key, shape, dtype=jnp.float32):
        values = init(key, (rows, *shape[1:]), dtype)
        return jnp.pad(values, [(0, shape[0] - rows), *[(0, 0)] * (len(shape) - 1)])

    return padded_init


def layer_norm(config: ModelConfig, name: str | None = "LayerNorm") -> nn.LayerNorm:
    """LayerNorm with float32 statistics by the two-pass formula: the fast one loses digits where the mean is large."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps, dtype=config.activation_dtype, use_fast_variance=False, name=name
    )
