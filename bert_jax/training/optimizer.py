"""BERT's optimizer: AdamW with and without bias correction, LAMB, and the schedule (paper, appendix A.2)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.config import OptimizerConfig
from bert_jax.devices.sharding import path_name


class Schedule(NamedTuple):
    """The learning rate at a step t (0 is the first): linear from 0 over the warm-up W, then to 0 at the last step N.

    A tree of numbers that a training step takes, so that runs of other rates and lengths share its program.
    """

    peak: np.float32
    warmup: np.int32
    steps: np.int32
    """N."""
    decay_steps: np.int32
    """N or N - W, of which the falling rate is what is left."""

    def __call__(self, step):
        rising = step / jnp.maximum(self.warmup, 1)
        falling = (self.steps - step) / self.decay_steps
        return self.peak * jnp.where(step < self.warmup, rising, falling)


def schedule(config: OptimizerConfig, total_steps: int) -> Schedule:
    """A run's of so many steps, as its config has it."""
    decay_steps = total_steps if config.decay == "from_zero" else total_steps - config.warmup_steps
    return Schedule(np.float32(config.learning_rate), *map(np.int32, (config.warmup_steps, total_steps, decay_steps)))


def without_schedule(config: OptimizerConfig) -> OptimizerConfig:
    """What `make_optimizer` depends on: the same for all schedules."""
    default = OptimizerConfig()
    names = ("learning_rate", "warmup_steps", "decay")
    return dataclasses.replace(config, **{name: getattr(default, name) for name in names})


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Clip, moments, decay, (LAMB's trust ratio,) learning rate. An update that isn't finite is skipped and counted.

    `update(grads, state, params, schedule=...)` takes the `Schedule`.
    """
    adam = (
        optax.scale_by_adam(config.b1, config.b2, config.eps) if config.bias_correction else _uncorrected_adam(config)
    )
    chain = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        adam,
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        _trust_ratio() if config.name == "lamb" else optax.identity(),
        _scale_by_schedule(),
    )
    return _skip_not_finite(chain)


def decayed(params):
    """True for each parameter with weight decay: all but LayerNorm and biases, as in the original."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not ("LayerNorm" in path_name(path) or path_name(path).endswith("bias")), params
    )


def _scale_by_schedule() -> optax.GradientTransformationExtraArgs:
    """As optax.scale_by_learning_rate, by the schedule that comes with the update."""

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, schedule: Schedule):
        scale = -schedule(state.count)
        return jax.tree.map(lambda x: scale.astype(x.dtype) * x, updates), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _skip_not_finite(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Where the gradient's norm isn't finite, the parameters and the inner state stay as they are.

    As optax.apply_if_finite, but chosen number by number: its two branches can't be fused with the update, which then
    goes through memory twice.
    """

    def init(params):
        # Not jnp.array(0), whose type is weak and would change with the first step: a second one would be compiled.
        in_a_row, total = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return optax.ApplyIfFiniteState(in_a_row, jnp.array(True), total, inner.init(params))

    def update(grads, state, params=None, **more):
        finite = jnp.isfinite(optax.tree.norm(grads))
        updates, inner_state = inner.update(grads, state.inner_state, params, **more)
        updates = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), updates)
        inner_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner_state, state.inner_state)
        skipped = (~finite).astype(jnp.int32)
        in_a_row = jnp.where(finite, 0, state.notfinite_count + 1)
        return updates, optax.ApplyIfFiniteState(in_a_row, finite, state.total_notfinite + skipped, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


class _Moments(NamedTuple):
    mu: optax.Updates
    nu: optax.Updates


def _uncorrected_adam(config: OptimizerConfig) -> optax.GradientTransformation:
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
        axes = tuple(range(1 if "layer" in path_name(path).split("/") else 0, param.ndim))
        norm = jnp.sqrt(jnp.sum(param**2, axes, keepdims=True))
        update_norm = jnp.sqrt(jnp.sum(update**2, axes, keepdims=True))
        ratio = jnp.where((norm > 0) & (update_norm > 0), norm / jnp.where(update_norm > 0, update_norm, 1.0), 1.0)
        return update * ratio

    def update(updates, state, params):
        return jax.tree_util.tree_map_with_path(scale, updates, params, decayed(params)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
