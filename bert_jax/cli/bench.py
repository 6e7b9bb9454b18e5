"""`bert-jax bench`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from bert_jax.bench import Way
from bert_jax.cli.finetune import Finetune
from bert_jax.cli.options import ConfigFields, ConfigName, OptionalConfigName, parse
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

    def run(self) -> None:
        from bert_jax.bench.finetune import bench_finetune

        bench_finetune(self.config, self.init, self.seeds)


@dataclass(frozen=True)
class BenchTrain:
    """A step of pretraining against transformers in torch: time, memory, share of what the device reaches."""

    config_name: ConfigName
    """A config file, or the name of one that ships with bert_jax."""
    config: ConfigFields
    phase: int = 0
    """The phase whose batches are taken; 0 is the first."""
    against: tuple[Way, ...] = ("eager", "compiled")
    """How torch runs: as it is or by torch.compile, in float32 or in bf16 by autocast."""
    rounds: int = 5
    seconds: float = 5.0
    """The length of each turn in a round."""
    json: Path | None = None
    """File to write the figures to."""

    def run(self) -> None:
        from bert_jax.bench.train import bench_train

        bench_train(self.config, self.phase, self.against, self.rounds, self.seconds, self.json)


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
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type of matrix products; torch's whole model is in it."""

    def run(self) -> None:
        from bert_jax.bench.encode import bench_encode

        bench_encode(self.model, list(self.files), self.rounds, self.dtype)


WITH_CONFIG: dict[str, type] = {"train": BenchTrain, "finetune": BenchFinetune}
COMMANDS: dict[str, Callable] = {"prepare": BenchPrepare, "pipeline": BenchPipeline, "encode": BenchEncode}


def run(arguments: list[str]) -> None:
    if arguments[:1] and arguments[0] in WITH_CONFIG:
        parse(WITH_CONFIG[arguments[0]], arguments[1:]).run()
        return
    commands: dict[str, Callable] = {**WITH_CONFIG, **COMMANDS}  # Those with a config are only for the list here.
    description = "Measures bert_jax against another library, in turns."
    tyro.extras.subcommand_cli_from_dict(commands, prog="bert-jax bench", description=description, args=arguments).run()
