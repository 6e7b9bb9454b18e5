"""`bert-jax evaluate`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from bert_jax.cli.options import ConfigFields, OptionalConfigName, check_task, command_line, find
from bert_jax.config import FinetuneConfig, InputError, PretrainConfig
from bert_jax.config.files import load_config
from bert_jax.files.printable import say

# Settings of the run section that only training uses.
TRAINING_ONLY = (
    *("log_every", "evaluate_every", "checkpoint_every", "keep_last", "keep_best", "accumulate_steps"),
    "max_skipped_updates",
)


@dataclass(frozen=True)
class EvaluateTask:
    """Scores a fine-tuned model on its task's files."""

    model: str
    """A workdir (its best checkpoint), a checkpoint's folder, or a Hugging Face folder."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    config_name: OptionalConfigName = None
    """A config file or name (default: the config that the model was trained with)."""
    task: Annotated[str | None, tyro.conf.arg(name="task", metavar="TASK")] = None
    """The task to choose, where the config file has several."""
    output: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for scores, predictions, the official submission files, and a page to look at."""

    UNREAD: ClassVar[tuple[str, ...]] = (
        *("seed", "batch_size", "epochs", "warmup", "dropout", "objective", "optimizer"),
        *("task.train", "task.train_examples", *(f"run.{name}" for name in TRAINING_ONLY), "run.workers"),
        "run.evaluation_batches",
    )
    """Settings of the config that only training uses."""


@dataclass(frozen=True)
class EvaluateText:
    """Measures a pretrained model's loss on the config's corpus."""

    model: str
    """A workdir, a checkpoint's folder, or a Hugging Face folder."""
    config: ConfigFields
    config_name: OptionalConfigName = None
    """A config file or name (default: the config that the model was trained with)."""
    output: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for scores.json."""

    UNREAD: ClassVar[tuple[str, ...]] = (
        *("corpus.held_out", "tokenizer", "masking.rate", "masking.static", "model", "objective", "optimizer"),
        "phases.0.steps",
        *(f"run.{name}" for name in TRAINING_ONLY),
    )
    """Settings of the config that only training uses, or that come with the model."""


def run(arguments: list[str]) -> None:
    named, others = find(arguments, "--model", "--config", "--task")
    check_task(named)
    if not named.model and not {"-h", "--help"} & set(others):
        raise InputError("--model: name the model to evaluate")
    task = {"task": named.task} if named.task else {}
    config = load_config(named.config, FinetuneConfig, PretrainConfig, **task) if named.config else None
    if not named.model:  # Prints help and exits; without --config, help on a task's options.
        _parse(config or FinetuneConfig(), tyro.MISSING, arguments)
    from bert_jax.convert import pretrained
    from bert_jax.devices import compiling
    from bert_jax.runs.evaluation import check_repeated, evaluate, own_config

    compiling.set_up()
    saved = pretrained.read(named.model)
    config, external = (config, None) if config else own_config(saved, named.model)
    command = _parse(config, named.model, arguments)
    if external is not None:
        check_repeated(command.config, external)
    scores = evaluate(saved, command.config, command.output)
    for name, value in scores.items():
        say(f"{name}  {value:.4f}")


def _parse(config: FinetuneConfig | PretrainConfig, model: str, arguments: list[str]) -> EvaluateTask | EvaluateText:
    command = EvaluateTask(model, config) if isinstance(config, FinetuneConfig) else EvaluateText(model, config)
    return command_line(type(command), "bert-jax evaluate", command, arguments, command.UNREAD)
