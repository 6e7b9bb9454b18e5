"""The program of a config on a mesh: shapes, shardings, the jitted step. The loop runs it, `plan` only compiles it."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.config import FinetuneConfig, InputError, OptimizerConfig, Phase, PretrainConfig
from bert_jax.config.models import Remat
from bert_jax.devices.compiling import training_options
from bert_jax.devices.precision import computed
from bert_jax.devices.sharding import batch_sharding, state_shardings
from bert_jax.models.model import PACKED_INPUTS
from bert_jax.objectives import Objective, check_name, make_objective
from bert_jax.training import optimizer as optimizers
from bert_jax.training import steps
from bert_jax.training.optimizer import Schedule, make_optimizer, schedule, without_schedule


@dataclass(frozen=True)
class Settings:
    """The settings that a training step depends on, besides the objective and the seed."""

    optimizer: OptimizerConfig
    steps: int
    """The number of steps in the whole run, for the schedule."""
    accumulate_steps: int = 1


def check_names(config: PretrainConfig | FinetuneConfig) -> None:
    """Raises `InputError` for an unknown name of an objective, an optimizer or a schedule."""
    check_name(config.objective)
    optimizers.check_names(config.optimizer)


def pretraining_setup(config: PretrainConfig) -> tuple[Objective, Settings]:
    """The objective and the settings of a pretraining run, as `make_program` takes them."""
    settings = Settings(config.optimizer, config.total_steps, config.run.accumulate_steps)
    return make_objective(config.objective, steps.make_model(config)), settings


@dataclass(frozen=True)
class Program:
    """The compiled functions of a training run, and the shapes and shardings of what they take."""

    objective: Objective
    """The given objective, its model's `remat` no longer "auto", and `dtype` as the mesh's devices compute it."""
    optimizer: optax.GradientTransformation
    state: Any
    """The train state's shapes and types, each with its sharding (`jax.ShapeDtypeStruct`)."""
    shardings: Any
    """The same tree of shardings alone."""
    rows: NamedSharding
    """The sharding of each array of a batch."""
    everywhere: NamedSharding
    """The sharding of metrics: the same on every device, so that each process can read them."""
    seed: jax.ShapeDtypeStruct
    """The shape of the seed, an int32 scalar."""
    schedule: Schedule
    """The shapes and types of the schedule."""
    init: Callable[[Any], Any]
    """Makes a fresh state from a seed; jitted, so that each device makes only what it holds."""
    constants: Any
    """The shapes of the objective's constants, each with its sharding."""
    train_step: jax.stages.Wrapped
    """`(state, batch, seed, schedule, constants) -> (state, metrics)`, jitted; the given state is donated."""

    def lowered(self, batch: dict[str, jax.ShapeDtypeStruct]) -> jax.stages.Lowered:
        """The training step for a batch of these shapes, ready to compile; the mesh must be set, as for a call."""
        return self.train_step.lower(self.state, batch, self.seed, self.schedule, self.constants)


def make_program(objective: Objective, settings: Settings, mesh: Mesh) -> Program:
    """The program of an objective on a mesh, not compiled yet. Raises `InputError` naming the parameter that can't be
    split over the mesh, or if the objective can't be computed for parts of a batch.

    Arguments that differ only in the schedule give the same program: runs with several seeds and rates compile it once.
    """
    check_parts(objective, settings)
    model = objective.model
    platform = mesh.devices.flat[0].platform
    config = dataclasses.replace(computed(model.config, platform), remat=_remat(model.config.remat, platform))
    objective = dataclasses.replace(objective, model=model.clone(config=config))
    return _make_program(objective, without_schedule(settings.optimizer), settings.accumulate_steps, mesh)


def check_parts(objective: Objective, settings: Settings) -> None:
    """Raises `InputError` if gradients are to be accumulated over parts of a batch, and the objective can't do that."""
    if settings.accumulate_steps > 1 and not objective.additive:
        what = f"is {settings.accumulate_steps}, but this objective compares all of a batch with each other"
        raise InputError(f"run.accumulate_steps: {what}; leave it 1")


def _remat(remat: Remat, platform: str) -> Remat:
    """Decides what "auto" is, for the mesh's devices, which may be elsewhere: `plan` compiles for other machines.

    An accelerator waits for its memory more than for products, so recomputing costs less than writing and reading. On
    a CPU it costs up to a tenth of a step, most where layers are unrolled, and memory is rarely short.
    """
    return remat if remat != "auto" else "none" if platform == "cpu" else "dots"


@functools.lru_cache(maxsize=4)
def _make_program(objective: Objective, config: OptimizerConfig, accumulate_steps: int, mesh: Mesh) -> Program:
    optimizer = make_optimizer(config)

    def fresh_state(seed):
        return steps.init_state(objective.model, optimizer, seed)

    shapes = jax.eval_shape(fresh_state, 0)
    axes = objective.model.logical_axes
    shardings = state_shardings(mesh, shapes, axes)
    rows, everywhere = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    # A teacher's parameters are sharded like the model's parameters of the same names.
    constants = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), objective.constants())
    both = {"params": shapes["params"], "constants": constants}
    constants = _shapes_on(both, state_shardings(mesh, both, axes))["constants"]
    train_step = jax.jit(
        steps.make_train_step(objective, optimizer, accumulate_steps),
        donate_argnums=0,
        in_shardings=(shardings, rows, everywhere, everywhere, jax.tree.map(lambda x: x.sharding, constants)),
        out_shardings=(shardings, everywhere),
        compiler_options=training_options(mesh.devices.flat[0].platform, objective.model.config.dtype),
    )
    return Program(
        objective=objective,
        optimizer=optimizer,
        state=_shapes_on(shapes, shardings),
        shardings=shardings,
        rows=rows,
        everywhere=everywhere,
        seed=jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
        schedule=jax.tree.map(lambda x: jax.ShapeDtypeStruct((), x.dtype, sharding=everywhere), schedule(config, 1)),
        constants=constants,
        init=jax.jit(fresh_state, out_shardings=shardings),
        train_step=train_step,
    )


def _shapes_on(shapes, shardings):
    """The same shapes, each with its sharding."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def batch_shapes(config: PretrainConfig, phase: Phase, rows: NamedSharding) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of a batch of a phase, as `data.pipeline.batches` makes them."""
    tokens, predictions = (phase.batch_size, phase.sequence_length), (phase.batch_size, phase.max_predictions)
    inputs = ("input_ids", "token_type_ids", "attention_mask")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(inputs, tokens)
    shapes |= dict.fromkeys(("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"), predictions)
    shapes["next_sentence_labels"] = (phase.batch_size,)
    if config.examples.format == "packed":
        shapes |= dict.fromkeys(PACKED_INPUTS, tokens)
    types = {"masked_lm_weights": jnp.float32}
    return {
        name: jax.ShapeDtypeStruct(shape, types.get(name, jnp.int32), sharding=rows) for name, shape in shapes.items()
    }
