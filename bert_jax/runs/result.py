"""What a run came to."""

from dataclasses import dataclass, field
from pathlib import Path

from bert_jax.inference.bert import Bert
from bert_jax.inference.loading import load
from bert_jax.training import loop


@dataclass(frozen=True)
class Result(loop.Result):
    """What `pretrain` and `finetune` return: `step`, `scores`, `best`, `signal` and `steps_per_second` as the loop has
    them, and the workdir."""

    workdir: Path = field(kw_only=True)
    """Holds the run: its checkpoints, metrics and plot."""

    @classmethod
    def of(cls, result: loop.Result, workdir: Path) -> "Result":
        return cls(**vars(result), workdir=workdir)

    def load(self) -> Bert:
        """The model of the best checkpoint, or of the last one where none was scored.

        Raises `InputError` where it is no longer there.
        """
        step = self.step if self.best is None else self.best
        return load(self.workdir / "checkpoints" / str(step))
