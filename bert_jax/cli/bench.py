"""`bert-jax bench`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from bert_jax.cli.finetune import Finetune
from bert_jax.cli.options import OptionalConfigName, parse
from bert_jax.config import FinetuneConfig


@dataclass(frozen=True)
class BenchFinetune:
    """Compares fine-tuning with transformers in torch: scores and speed, seed by seed, in turns."""

    init: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """A Hugging Face folder, from which both start."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    config_name: OptionalConfigName = None
    """A config file, or the name of one that ships with bert_jax."""
    task: Annotated[str | None, tyro.conf.arg(name="task", metavar="TASK")] = None
    """The task to choose, where the config file has several."""
    seeds: int = 3
    """Number of seeds, counted up from the config's seed."""

    UNREAD: ClassVar[dict[str, str]] = Finetune.UNREAD


@dataclass(frozen=True)
class BenchPrepare:
    """Text to examples, against a fast tokenizer."""

    files: Path
    """A text file."""
    vocab: Path
    """A WordPiece vocab.txt."""
    rounds: int = 3

    def run(self) -> None:
        from bert_jax.bench.data import bench_prepare

        bench_prepare(self.files, self.vocab, self.rounds)


@dataclass(frozen=True)
class BenchPipeline:
    """Examples to batches, against a collator for masked words."""

    examples: str
    """A folder that bert-jax prepare made."""
    rounds: int = 3
    seconds: float = 5.0
    """The length of a measurement."""

    def run(self) -> None:
        from bert_jax.bench.data import bench_pipeline

        bench_pipeline(self.examples, self.rounds, self.seconds)


@dataclass(frozen=True)
class BenchEncode:
    """Sentences to vectors, against torch with batches sorted by length, and unsorted."""

    model: str
    """A Hugging Face folder of a BERT encoder."""
    files: tuple[Path, ...]
    """UTF-8, a sentence on each line."""
    rounds: int = 5

    def run(self) -> None:
        from bert_jax.bench.encode import bench_encode

        bench_encode(self.model, list(self.files), self.rounds)


def run(arguments: list[str]) -> None:
    if arguments[:1] == ["finetune"]:
        command = parse(BenchFinetune, arguments[1:])
        from bert_jax.bench.finetune import bench_finetune

        bench_finetune(command.config, command.init, command.seeds)
        return
    commands: dict[str, Callable] = {"prepare": BenchPrepare, "pipeline": BenchPipeline, "encode": BenchEncode}
    commands["finetune"] = BenchFinetune  # Only for the list of commands.
    description = "Measures bert_jax against another library, in turns."
    tyro.extras.subcommand_cli_from_dict(commands, prog="bert-jax bench", description=description, args=arguments).run()
