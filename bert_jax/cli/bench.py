"""`bert-jax bench`."""

import argparse
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


def run(arguments: list[str]) -> None:
    if arguments[:1] == ["finetune"]:
        command = parse(BenchFinetune, arguments[1:])
        from bert_jax.bench.finetune import bench_finetune

        bench_finetune(command.config, command.init, command.seeds)
        return
    description = "Measures bert_jax against another library, in turns."
    parser = argparse.ArgumentParser(prog="bert-jax bench", description=description)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("finetune", help="a task, against transformers in torch; takes the options of bert-jax finetune")
    prepare = what.add_parser("prepare", help="text to examples, against a fast tokenizer")
    prepare.add_argument("--files", required=True, type=Path, help="a text file")
    prepare.add_argument("--vocab", required=True, type=Path, help="a WordPiece vocab.txt")
    prepare.add_argument("--rounds", type=int, default=3)
    pipeline = what.add_parser("pipeline", help="examples to batches, against a collator for masked words")
    pipeline.add_argument("--examples", required=True, help="a folder that bert-jax prepare made")
    pipeline.add_argument("--rounds", type=int, default=3)
    pipeline.add_argument("--seconds", type=float, default=5.0, help="length of a measurement")
    encode = what.add_parser("encode", help="sentences to vectors, against torch with sorted and with unsorted batches")
    encode.add_argument("--model", required=True, help="a Hugging Face folder of a BERT encoder")
    encode.add_argument("--files", required=True, type=Path, nargs="+", help="UTF-8, a sentence on each line")
    encode.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if options.what == "encode":
        from bert_jax.bench.encode import bench_encode

        bench_encode(options.model, options.files, options.rounds)
        return
    from bert_jax.bench import data

    if options.what == "prepare":
        data.bench_prepare(options.files, options.vocab, options.rounds)
    else:
        data.bench_pipeline(options.examples, options.rounds, options.seconds)
