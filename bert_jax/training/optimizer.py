"""The optimizer of a run: clipping, the optimizer that the config names, and the learning rate by its schedule."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.config import InputError, OptimizerConfig
from bert_jax.config.checks import did_you_mean
from bert_jax.training.optimizers import OPTIMIZERS


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Schedule:
    """The learning rate at a step t (0 is the first): linear from 0 over the warm-up, then by its kind.

    A tree of numbers that a training step takes, so that runs with other rates and lengths share the compiled step.
    """

    peak: np.float32
    warmup: np.int32
    """The number of warm-up steps, W."""
    steps: np.int32
    """The number of steps in the whole run, N."""
    decay_steps: np.int32
    """N or N - W: the linear rate is the peak times the remaining steps over this number."""
    kind: str = dataclasses.field(metadata={"static": True})
    """A name in `SCHEDULES`."""

    def __call__(self, step):
        rising = step / jnp.maximum(self.warmup, 1)
        falling = SCHEDULES[self.kind](self, step)
        return self.peak * jnp.where(step < self.warmup, rising, falling)


def _cosine(s: Schedule, step):
    return (1 + jnp.cos(jnp.pi * (step - s.warmup) / (s.steps - s.warmup))) / 2


def _inverse_sqrt(s: Schedule, step):
    scale = jnp.where(s.warmup > 0, s.warmup, 10_000)
    return jnp.sqrt(scale / (step - s.warmup + scale))


SCHEDULES: dict[str, Callable] = {
    "linear": lambda s, step: (s.steps - step) / s.decay_steps,
    "cosine": _cosine,
    "constant": lambda s, step: 1.0,
    "inverse_sqrt": _inverse_sqrt,
}
"""For each kind, a function from the `Schedule` and a step after the warm-up to the share of the peak rate."""


def check_names(config: OptimizerConfig) -> None:
    """Raises `InputError` for an unknown name of an optimizer or schedule; the message has the nearest known name."""
    for field, known in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
        if (name := getattr(config, field)) not in known:
            raise InputError(f"optimizer.{field}: is {name!r:.99}; {did_you_mean(name[:99], known)}")


def schedule(config: OptimizerConfig, total_steps: int) -> Schedule:
    """The schedule of a run of `total_steps` steps. Raises `InputError` if the config names an unknown one."""
    check_names(config)
    decay_steps = total_steps if config.decay == "from_zero" else total_steps - config.warmup_steps
    warmup, steps, decay = (np.int32(number) for number in (config.warmup_steps, total_steps, decay_steps))
    return Schedule(np.float32(config.learning_rate), warmup, steps, decay, kind=config.schedule)


def without_schedule(config: OptimizerConfig) -> OptimizerConfig:
    """The config with the schedule's numbers at their defaults: the compiled step doesn't depend on them."""
    default = OptimizerConfig()
    names = ("learning_rate", "warmup_steps", "decay")
    return dataclasses.replace(config, **{name: getattr(default, name) for name in names})


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Clipping, the config's optimizer, the learning rate. An update that isn't finite is skipped and counted.

    `update(grads, state, params, schedule=...)` takes the `Schedule`. Raises `InputError` if the config names an
    unknown optimizer.
    """
    check_names(config)
    clip = optax.clip_by_global_norm(config.clip_norm)
    return _skip_not_finite(optax.chain(clip, *OPTIMIZERS[config.name](config), _scale_by_schedule()))


def _scale_by_schedule() -> optax.GradientTransformationExtraArgs:
    """optax.scale_by_learning_rate, with the schedule that is given to the update."""

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, schedule: Schedule):
        scale = -schedule(state.count)
        return jax.tree.map(lambda x: scale.astype(x.dtype) * x, updates), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _skip_not_finite(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """If the gradient's norm isn't finite, the parameters and the inner state stay as they are.

    As optax.apply_if_finite, but with a choice for each number: optax's two branches can't be fused with the update,
    which then goes through memory twice.
    """

    def init(params):
        # Not jnp.array(0), whose weak type would change with the first step, so that the step would be compiled again.
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
