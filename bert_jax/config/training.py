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
    """adamw, as in BERT; lamb, for large batches; lion; adafactor, whose state is small; muon, for the matrices of the
    layers, with Adam for all else; or a name that a config file adds to bert_jax.training.optimizers.OPTIMIZERS."""
    learning_rate: float = 1e-4
    """The peak, at the end of the warm-up. Lion's authors advise one 3 to 10 times smaller than AdamW's, and a
    weight_decay larger by the same factor; Adafactor's is relative to a parameter's size (1e-2 in T5)."""
    b1: float = 0.9
    """Decay of the first moment. Adafactor has none; for Muon's matrices it is always 0.95, its authors' value."""
    b2: float = 0.999
    """Decay of the second moment; in Lion, of the momentum (its authors use 0.99). Adafactor, which has its own
    schedule, doesn't read it, nor do Muon's matrices."""
    eps: float = 1e-6
    """Added to Adam's denominator. Lion, Adafactor and Muon's matrices don't read it."""
    weight_decay: float = 0.01
    """Applied to all but LayerNorm and biases."""
    bias_correction: bool = True
    """Whether Adam's moments are corrected for their bias, in adamw, lamb and muon. The original doesn't (its authors
    call that an oversight); with it, training is steadier."""
    warmup_steps: int = 10_000
    schedule: str = "linear"
    """The learning rate after the warm-up of W steps: linear or cosine, to 0 at the last step; constant; inverse_sqrt,
    which is sqrt(W/t); or a name that a config file adds to bert_jax.training.optimizer.SCHEDULES."""
    decay: Literal["from_zero", "from_warmup"] = "from_zero"
    """The linear schedule at step t of N. from_zero: (N-t)/N as in the original, which drops at W; from_warmup:
    (N-t)/(N-W). The other schedules always continue from the peak at W."""
    clip_norm: float = 1.0
    """The gradient's global norm is clipped to this."""


@dataclass(frozen=True)
class MeshConfig(Section):
    """Number of devices along each axis of the mesh; -1, on one axis, means all that are left.

    Example:
      >>> bert_jax.MeshConfig(fsdp=8)
      MeshConfig(data=-1, fsdp=8, tensor=1)
    """

    data: int = -1
    """Number of copies of the model, each with its share of the batch."""
    fsdp: int = 1
    """Number of slices of the parameters and the optimizer's state, gathered for each layer; the batch is split too."""
    tensor: int = 1
    """Number of slices of the heads, the feed-forward layers and the vocabulary."""


@dataclass(frozen=True)
class RunConfig(Section):
    """How a run is logged, evaluated and kept. Any of these may change when a run is resumed.

    Example:
      >>> bert_jax.RunConfig(log_every=10, keep_last=1).keep_best
      1
    """

    log_every: int = 100
    evaluate_every: int = 10_000
    evaluation_batches: int | None = None
    """Number of held-out batches in an evaluation (None: all)."""
    checkpoint_every: int = 10_000
    keep_last: int = 2
    keep_best: int = 1
    """Number of checkpoints with the lowest held-out loss that are kept besides the last, of those that are saved at a
    step of evaluation."""
    accumulate_steps: int = 1
    """Number of parts in which each batch is computed, one after the other, if it doesn't fit in memory whole."""
    max_skipped_updates: int = 10
    """Stop after this many updates in a row whose gradient isn't finite; each is skipped and counted."""
    workers: int | None = None
    """Number of processes that prepare examples (None: one for each CPU core that affinity and cgroup grant)."""
    compilation_cache: str | None = None
    """Folder that keeps compiled programs for the next run ("": none; None: the one in JAX_COMPILATION_CACHE_DIR, else
    programs/ in the user's cache, ~/.cache/bert_jax, of at most 1 GiB)."""
