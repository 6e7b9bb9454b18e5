"""The optimizers by name: how each transforms the clipped gradients before the learning rate scales them.

To add an optimizer takes one line, here or in any file that is loaded first, such as your own config file:

    OPTIMIZERS["sign"] = lambda config: [optax.scale_by_sign()]

Its state needs nothing else: `devices.sharding` puts any state on the mesh, and checkpoints hold it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_jax.config import OptimizerConfig
from bert_jax.devices.sharding import path_name


def adamw(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """AdamW (arXiv 1711.05101); without `bias_correction`, the optimizer of the original BERT."""
    # The identity stands where LAMB has its trust ratio: checkpoints name the state of what follows by its number.
    return [_adam(config), _decay(config), optax.identity()]


def lamb(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """LAMB (arXiv 1904.00962) as in its authors' code: without the layer-wise ratio for biases and LayerNorm."""
    return [_adam(config), _decay(config), _trust_ratio()]


def lion(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """Lion (arXiv 2302.06675): the sign of a momentum."""
    return [optax.scale_by_lion(config.b1, config.b2), _decay(config)]


def adafactor(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """Adafactor (arXiv 1804.04235), without momentum, with the constants of the paper.

    For a matrix with both sides 128 or more it keeps only the means of the squared gradient over rows and columns.
    """
    scale = optax.chain(
        optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms(min_scale=1e-3)
    )
    return [each_layer(scale), _decay(config)]


def muon(config: OptimizerConfig) -> Sequence[optax.GradientTransformation]:
    """Muon (kellerjordan.github.io/posts/muon) for the layers' matrices, and Adam for all else, as its authors say.

    Each layer's matrix is orthogonalised by itself. The updates are scaled to the size of Adam's (arXiv 2502.16982), so
    that one learning rate and one weight decay fit both.
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
"""For each optimizer its transformations in order; clipping comes before them, the learning rate after them."""


def is_stacked(path) -> bool:
    """Whether the path is of a parameter that holds those of all layers, stacked on a leading axis."""
    return "layer" in path_name(path).split("/")


def each_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies `inner` to each layer's parameters separately.

    Needed by whatever takes a norm or a mean over a whole parameter, or depends on its number of dimensions.
    """

    def labels(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: "layers" if is_stacked(path) else "others", params)

    layers = optax.GradientTransformation(jax.vmap(inner.init), jax.vmap(inner.update))
    return optax.partition({"layers": layers, "others": inner}, labels)


def decayed(params):
    """A tree that is True for each parameter with weight decay: all but LayerNorm and biases, as in the original."""
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
    """Adam's m / (sqrt(v) + eps) as in google-research/bert: the moments' bias towards 0 isn't corrected."""

    def init(params):
        return _Moments(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(grads, state, params=None):
        mu = optax.tree.update_moment(grads, state.mu, config.b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, config.b2, 2)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + config.eps), mu, nu), _Moments(mu, nu)

    return optax.GradientTransformation(init, update)


def _trust_ratio() -> optax.GradientTransformation:
    """LAMB's layer-wise scale |parameter| / |update| (arXiv 1904.00962, algorithm 2), 1 where either is 0.

    As in its authors' code (google-research/albert), only parameters that are `decayed` are scaled: biases start at 0,
    and steps of their own size would hardly move them. Each stacked layer has its own norm; optax takes one over all.
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
