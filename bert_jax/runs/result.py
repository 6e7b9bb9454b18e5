"""The result of a run."""

from dataclasses import dataclass, field
from pathlib import Path

from bert_jax.inference.bert import Bert
from bert_jax.inference.loading import load
from bert_jax.training import loop


@dataclass(frozen=True)
class Result(loop.Result):
    """What `pretrain` and `finetune` return: the loop's `step`, `scores`, `best`, `signal` and `steps_per_second`, and
    the workdir."""

    workdir: Path = field(kw_only=True)
    """The folder of the run: its checkpoints, metrics and plot."""

    @classmethod
    def from_loop(cls, result: loop.Result, workdir: Path) -> "Result":
        return cls(**vars(result), workdir=workdir)

    def load(self) -> Bert:
        """The model of the best checkpoint, or of the last one where none was scored.

        Raises `InputError` where the checkpoint no longer exists.
        """
        step = self.step if self.best is None else self.best
        return load(self.workdir / "checkpoints" / str(step))
