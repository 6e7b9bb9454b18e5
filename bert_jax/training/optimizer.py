"""The optimizer of a run: clipping, the one that the config names, and the learning rate by its schedule."""

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
    """The learning rate at a step t (0 is the first): linear from 0 over the warm-up, then as its kind has it.

    A tree of numbers that a training step takes, so that runs of other rates and lengths share its program.
    """

    peak: np.float32
    warmup: np.int32
    """W, in steps."""
    steps: np.int32
    """N, of the whole run."""
    decay_steps: np.int32
    """N or N - W, of which the linear rate is what is left."""
    kind: str = dataclasses.field(metadata={"static": True})
    """A name of `SCHEDULES`."""

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
"""Of each kind the share of the peak at a step after the warm-up, from the `Schedule` and the step."""


def check_names(config: OptimizerConfig) -> None:
    """Raises `InputError` for the name of an optimizer or schedule that there isn't, with the nearest that there is."""
    for field, known in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
        if (name := getattr(config, field)) not in known:
            raise InputError(f"optimizer.{field}: is {name!r:.99}; {did_you_mean(name[:99], known)}")


def schedule(config: OptimizerConfig, total_steps: int) -> Schedule:
    """The schedule of a run of so many steps. Raises `InputError` where there is none of that name."""
    check_names(config)
    decay_steps = total_steps if config.decay == "from_zero" else total_steps - config.warmup_steps
    warmup, steps, decay = (np.int32(number) for number in (config.warmup_steps, total_steps, decay_steps))
    return Schedule(np.float32(config.learning_rate), warmup, steps, decay, kind=config.schedule)


def without_schedule(config: OptimizerConfig) -> OptimizerConfig:
    """The config with the schedule's numbers at their defaults: a program is the same for all of them."""
    default = OptimizerConfig()
    names = ("learning_rate", "warmup_steps", "decay")
    return dataclasses.replace(config, **{name: getattr(default, name) for name in names})


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Clip, what the config's optimizer does, learning rate. An update that isn't finite is skipped and counted.

    `update(grads, state, params, schedule=...)` takes the `Schedule`. Raises `InputError` where there is no optimizer
    of that name.
    """
    check_names(config)
    clip = optax.clip_by_global_norm(config.clip_norm)
    return _skip_not_finite(optax.chain(clip, *OPTIMIZERS[config.name](config), _scale_by_schedule()))


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
