"""`bert-jax import` and `bert-jax export`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from bert_jax.cli.options import Flag
from bert_jax.files import folders, storage
from bert_jax.files.printable import printable, say

Folder = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="FOLDER")]]


@dataclass(frozen=True)
class Import:
    """Makes a folder of bert_jax from another model's folder."""

    source: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="SOURCE")]]
    """A Hugging Face or google-research BERT folder, or any other MODEL."""
    folder: Folder
    """The folder to make; pretrain takes it as --init, all other commands as --model."""
    head: Annotated[str | None, tyro.conf.arg(metavar="KIND")] = None
    """Another head than the source's; encoder can be taken from any source."""
    labels: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL [LABEL ...]", help_behavior_hint="")] = ()
    """The names of the labels, if the source doesn't give them."""
    allow_missing: Flag = False
    """Initialise missing weights anew."""
    overwrite: Flag = False
    """Replace the folder if it exists, and was imported or exported."""


@dataclass(frozen=True)
class Export:
    """Writes a model for others to use."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A workdir, a checkpoint's folder, or a Hugging Face or google-research folder."""
    folder: Folder
    """The folder to make."""
    format: Annotated[str, tyro.conf.arg(metavar="FORMAT")]
    """hf (Hugging Face), tf1 (google-research's TensorFlow 1), onnx, stablehlo, or one of your own."""
    overwrite: Flag = False
    """Replace the folder if it exists, and was imported or exported."""


def import_model(arguments: list[str]) -> None:
    command = tyro.cli(Import, prog="bert-jax import", args=arguments)
    from bert_jax.config import HeadConfig, InputError
    from bert_jax.convert import pretrained
    from bert_jax.data.no_tokenizer import NoTokenizer
    from bert_jax.devices import compiling
    from bert_jax.models import kind_of

    compiling.begin()
    if command.head:
        kind_of(HeadConfig(command.head))
    with folders.whole_folder(storage.path(command.folder), pretrained.MADE if command.overwrite else None) as aside:
        saved = pretrained.read(command.source, command.allow_missing, command.head)
        if isinstance(saved.tokenizer, NoTokenizer) and not command.head:
            raise InputError(f"{saved.tokenizer.reason}; --head {saved.head.kind} imports the weights without it")
        if command.labels:
            saved = pretrained.with_labels(saved, command.labels)
        pretrained.save(saved, aside)
    sizes = f"{saved.model.num_hidden_layers} layers, {saved.model.hidden_size} wide"
    say(f"{command.folder}: {saved.head.kind}, {sizes}")
    for line in saved.report.lines():
        say(f"  {printable(line)}")


def export_model(arguments: list[str]) -> None:
    command = tyro.cli(Export, prog="bert-jax export", args=arguments)
    from bert_jax.convert import pretrained
    from bert_jax.devices import compiling

    compiling.begin()
    pretrained.export(command.model, command.folder, command.format, command.overwrite)
    made = sorted(file.name for file in storage.path(command.folder).iterdir())
    say(f"{command.folder}: {command.format}, {', '.join(made)}")
