"""Settings of any training: optimizer, mesh, and what is logged, evaluated and kept when."""

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.section import Section


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """The optimizer, and the schedule of its learning rate, whose step count is the sum of the phases'.

    Example:
      >>> bert_jax.OptimizerConfig("lamb", learning_rate=2e-3, warmup_steps=500).weight_decay
      0.01
    """

    name: str = "adamw"
    """adamw, as BERT's; lamb, for large batches; lion; adafactor, whose state is small; muon, for the matrices of the
    layers, with Adam for all else; or what a config file adds to bert_jax.training.optimizers.OPTIMIZERS."""
    learning_rate: float = 1e-4
    """The peak, reached at the end of the warm-up. Lion's is 3 to 10 times smaller than AdamW's, by its authors, with a
    weight_decay larger by as much; Adafactor's is relative to a parameter's size (1e-2 in T5)."""
    b1: float = 0.9
    """Decay of the first moment. Adafactor has none, and Muon's matrices have 0.95, its authors'."""
    b2: float = 0.999
    """Decay of the second moment, in Lion of the momentum (its authors' is 0.99). Not read by Adafactor, which has its
    own schedule, nor for Muon's matrices."""
    eps: float = 1e-6
    """Added to Adam's denominator. Not read by Lion, Adafactor, nor for Muon's matrices."""
    weight_decay: float = 0.01
    """Applied to all but LayerNorm and biases."""
    bias_correction: bool = True
    """Of Adam's moments, in adamw, lamb and muon. The original has none (its authors call that an oversight); with it,
    training is steadier."""
    warmup_steps: int = 10_000
    schedule: str = "linear"
    """The learning rate after the warm-up of W steps: linear or cosine, to 0 at the last step; constant; inverse_sqrt,
    as sqrt(W/t); or what a config file adds to bert_jax.training.optimizer.SCHEDULES."""
    decay: Literal["from_zero", "from_warmup"] = "from_zero"
    """linear: at step t of N (N-t)/N, the original's, which drops at W, or (N-t)/(N-W). The others go on from the peak
    at W, whatever this is."""
    clip_norm: float = 1.0
    """The gradient's global norm is clipped to this."""


@dataclass(frozen=True)
class MeshConfig(Section):
    """Devices along each axis of the mesh; one -1 takes those that are left.

    Example:
      >>> bert_jax.MeshConfig(fsdp=8)
      MeshConfig(data=-1, fsdp=8, tensor=1)
    """

    data: int = -1
    """Copies of the model, each with its share of the batch."""
    fsdp: int = 1
    """Slices of parameters and optimizer, gathered for each layer; the batch is split here too."""
    tensor: int = 1
    """Slices of heads, feed-forward and vocabulary."""


@dataclass(frozen=True)
class RunConfig(Section):
    """How the run is watched and kept. Any of it may change when a run is resumed.

    Example:
      >>> bert_jax.RunConfig(log_every=10, keep_last=1).keep_best
      1
    """

    log_every: int = 100
    evaluate_every: int = 10_000
    evaluation_batches: int | None = None
    """Held-out batches in an evaluation (None: all)."""
    checkpoint_every: int = 10_000
    keep_last: int = 2
    keep_best: int = 1
    """Checkpoints kept for the lowest held-out loss besides the last; those saved at a step of evaluation compete."""
    accumulate_steps: int = 1
    """Parts that each batch is computed in, one after the other, when it doesn't fit in memory."""
    max_skipped_updates: int = 10
    """Stop after so many updates in a row with a gradient that isn't finite; each is skipped and counted."""
    workers: int | None = None
    """Processes that prepare examples (None: one for each core that affinity and cgroup grant)."""
    compilation_cache: str | None = None
    """A folder that keeps compiled programs for the next run (None: what JAX_COMPILATION_CACHE_DIR names, or none)."""
