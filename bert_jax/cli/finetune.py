"""`bert-jax finetune`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from bert_jax.cli.options import Distributed, OptionalConfigName, parse, run_together
from bert_jax.config import FinetuneConfig, InputError


@dataclass(frozen=True)
class Finetune(Distributed):
    """Fine-tunes a pretrained model on a task in a workdir, or continues a run that was stopped."""

    workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run: checkpoints, metrics, plot; with several seeds or rates, a subfolder for each run."""
    init: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """The pretrained model: a workdir, a checkpoint's folder, or a Hugging Face folder."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    config_name: OptionalConfigName = None
    """A config file, or the name of one that ships with bert_jax (none: your own table)."""
    task: Annotated[str | None, tyro.conf.arg(name="task", metavar="TASK")] = None
    """The task to choose, where the config file has several, for example rte in finetune_glue."""
    seeds: int = 1
    """Number of seeds, counted up from the config's, to run one after the other; ends with mean and deviation."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates; all seeds run at each of them."""
    profile: bool = False
    """Write a trace of a few steps into the workdir."""

    UNREAD: ClassVar[dict[str, str]] = {
        "run.evaluate_every": "fine-tuning evaluates after each epoch",
        "run.evaluation_batches": "fine-tuning evaluates on all of dev",
        "run.checkpoint_every": "fine-tuning saves after each epoch",
        "run.workers": "fine-tuning has nothing to prepare",
        "optimizer.warmup_steps": "fine-tuning has warmup, a share of the steps",
    }


def run(arguments: list[str]) -> int:
    command = parse(Finetune, arguments)
    several = command.seeds > 1 or command.learning_rates
    if command.seeds < 1:
        raise InputError(f"--seeds: is {command.seeds}, must be at least 1")
    if command.profile and several:
        raise InputError("--profile: traces one run; give one seed and no --learning-rates")

    def train() -> int:
        from bert_jax.runs.finetuning import finetune, sweep

        if several:
            sweep(command.config, command.init, command.workdir, command.seeds, command.learning_rates)
            return 0
        result = finetune(command.config, command.init, command.workdir, command.profile)
        return 128 + result.signal if result.signal else 0

    return run_together(command, command.workdir, ["finetune", *arguments], train)
