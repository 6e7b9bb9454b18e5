"""The optimizers by name: what each makes of the clipped gradients before the learning rate scales it.

To add one is a line, here or in any file that is loaded first, such as one's own config file:

    OPTIMIZERS["sign"] = lambda config: [optax.scale_by_sign()]

Its state needs nothing else: `devices.sharding` lays it on the mesh as it finds it, and checkpoints hold it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import OptimizerConfig
from bert_jax.devices.sharding import path_name


def adamw(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """AdamW (arXiv 1711.05101), or without `bias_correction` the original's."""
    # The identity has LAMB's place: checkpoints have the state of what follows under its number.
    return [_adam(config), _decay(config), optax.identity()]


def lamb(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """LAMB (arXiv 1904.00962) as its authors' code has it: no layer-wise ratio of biases and LayerNorm."""
    return [_adam(config), _decay(config), _trust_ratio()]


def lion(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """Lion (arXiv 2302.06675): the sign of a momentum."""
    return [optax.scale_by_lion(config.b1, config.b2), _decay(config)]


def adafactor(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """Adafactor (arXiv 1804.04235), without momentum, with the constants of the paper.

    Of a matrix with both sides 128 or more it keeps the means of the rows and columns of the squared gradient alone.
    """
    scale = optax.chain(
        optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms(min_scale=1e-3)
    )
    return [each_layer(scale), _decay(config)]


def muon(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """Muon (kellerjordan.github.io/posts/muon) for the matrices of the layers, and Adam for all else, by its authors.

    Each layer's matrix is orthogonalised by itself. Scaled to the size of Adam's updates (arXiv 2502.16982), so that
    one learning rate and one weight decay fit both.
    """

    def matrices(params):
        return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(-2, -1), params)

    def to_adams_size(updates, _):
        return jax.tree.map(lambda x: 0.2 * max(x.shape[-2:]) ** 0.5 * x, updates)

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "muon" if is_stacked(path) and path_name(path).endswith("kernel") else "adam", params
        )

    orthogonal = optax.contrib.scale_by_muon(beta=0.95, weight_dimension_numbers=matrices)
    both = {"muon": optax.chain(orthogonal, optax.stateless(to_adams_size)), "adam": _adam(config)}
    return [optax.partition(both, labels), _decay(config)]


OPTIMIZERS: dict[str, Callable[[OptimizerConfig], Sequence[optax.GradientTransformation]]] = {
    "adamw": adamw,
    "lamb": lamb,
    "lion": lion,
    "adafactor": adafactor,
    "muon": muon,
}
"""The transformations, one after the other, of each optimizer; clipping comes before, the learning rate after them."""


def is_stacked(path) -> bool:
    """Whether a parameter's path is that of all layers' together, stacked on a leading axis."""
    return "layer" in path_name(path).split("/")


def each_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """As `inner`, by which each layer's parameters are seen as parameters of their own.

    For whatever takes a norm or a mean over a whole parameter, or tells its kind by the number of its dimensions.
    """

    def labels(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: "layers" if is_stacked(path) else "others", params)

    layers = optax.GradientTransformation(jax.vmap(inner.init), jax.vmap(inner.update))
    return optax.partition({"layers": layers, "others": inner}, labels)


def decayed(params):
    """True for each parameter with weight decay: all but LayerNorm and biases, as in the original."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not ("LayerNorm" in path_name(path) or path_name(path).endswith("bias")), params
    )


def _decay(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.add_decayed_weights(config.weight_decay, mask=decayed)


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(config.b1, config.b2, config.eps) if config.bias_correction else _uncorrected(config)


class _Moments(NamedTuple):
    mu: optax.Updates
    nu: optax.Updates


def _uncorrected(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam's m / (sqrt(v) + eps) as google-research/bert has it: the moments' bias towards 0 isn't corrected."""

    def init(params):
        return _Moments(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(grads, state, params=None):
        mu = optax.tree.update_moment(grads, state.mu, config.b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, config.b2, 2)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + config.eps), mu, nu), _Moments(mu, nu)

    return optax.GradientTransformation(init, update)


def _trust_ratio() -> optax.GradientTransformation:
    """LAMB's layer-wise scale |parameter| / |update| (arXiv 1904.00962, algorithm 2), 1 where either is 0.

    As its authors have it (google-research/albert), it is of what is `decayed` alone: biases start at 0, and by steps
    of their own size would hardly leave it. Stacked layers are layers each: optax's takes the norm over all of them.
    """

    def scale(path, update, param, scaled: bool):
        if not scaled:
            return update
        axes = tuple(range(1 if is_stacked(path) else 0, param.ndim))
        norm = jnp.sqrt(jnp.sum(param**2, axes, keepdims=True))
        update_norm = jnp.sqrt(jnp.sum(update**2, axes, keepdims=True))
        ratio = jnp.where((norm > 0) & (update_norm > 0), norm / jnp.where(update_norm > 0, update_norm, 1.0), 1.0)
        return update * ratio

    def update(updates, state, params):
        return jax.tree_util.tree_map_with_path(scale, updates, params, decayed(params)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
