"""`bert-jax pretrain`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from bert_jax.cli.options import ConfigFields, ConfigName, Distributed, parse, run_together
from bert_jax.files import storage


@dataclass(frozen=True)
class Pretrain(Distributed):
    """Pretrains a model in a workdir, or continues a run that was stopped."""

    workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run: checkpoints, metrics, plot, and the examples unless they are elsewhere."""
    config_name: ConfigName
    """A config file, or the name of one that ships with bert_jax."""
    config: ConfigFields
    examples_folder: Annotated[str | None, tyro.conf.arg(name="examples", metavar="FOLDER")] = None
    """Folder of examples that bert-jax prepare made, used instead of the config's corpus and tokenizer."""
    init: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """A model (a workdir, a checkpoint's folder, a Hugging Face folder) that gives the initial weights and, without
    --tokenizer.path, the tokenizer."""
    profile: bool = False
    """Write a trace of a few steps into the workdir."""


def run(arguments: list[str]) -> int:
    command = parse(Pretrain, arguments)

    def prepare_missing() -> None:
        from bert_jax.data.prepare import is_missing, prepare
        from bert_jax.training.program import check_names

        check_names(command.config)
        own = storage.path(command.workdir) / "examples"
        if command.examples_folder is None and is_missing(own):
            prepare(command.config, own, tokenizer=_tokenizer_of(command.init) if command.init else None)

    def train() -> int:
        from bert_jax.runs.pretraining import pretrain

        result = pretrain(command.config, command.workdir, command.examples_folder, command.init, command.profile)
        return 128 + result.signal if result.signal else 0

    return run_together(command, command.workdir, ["pretrain", *arguments], train, prepare_missing)


def _tokenizer_of(model: str):
    from bert_jax.convert.pretrained import tokenizer_of

    return tokenizer_of(model)
