"""`bert-jax prepare`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from bert_jax.cli.options import ConfigFields, ConfigName, parse
from bert_jax.config import InputError
from bert_jax.files import storage
from bert_jax.files.printable import say


@dataclass(frozen=True)
class Prepare:
    """Turns a corpus into a tokenizer and unmasked examples on disk."""

    config_name: ConfigName
    """A config file, or the name of one that ships with bert_jax."""
    config: ConfigFields
    output: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder to make; like all folders here, it may be in a bucket (gs://)."""
    overwrite: bool = False
    """Replace the folder if it exists, and holds examples."""
    dry_run: bool = False
    """Make nothing, but estimate from a sample of the corpus what would be made, and how long it takes."""
    show: int = 0
    """Number of examples in the folder to print for a person to read; if there is no folder, it is made first."""
    runner: str | None = None
    """Do the work with Apache Beam: DirectRunner, DataflowRunner, ... Beam's options follow a bare `--`."""


def run(arguments: list[str]) -> None:
    arguments, beam_options = _split(arguments)
    command = parse(Prepare, arguments)
    from bert_jax.training.program import check_names

    check_names(command.config)
    if command.dry_run:
        from bert_jax.data.dry_run import dry_run

        dry_run(command.config)
        return
    if command.output is None:
        raise InputError("--output: name the folder to make")
    from bert_jax.data.prepare import prepare

    if not command.show or command.overwrite or not storage.path(command.output).exists():
        engine = _beam_engine(command.runner, beam_options) if command.runner else None
        prepare(command.config, command.output, command.overwrite, engine)
    if command.show:
        from bert_jax.data.records import Examples
        from bert_jax.data.show import show

        say(*"\n\n".join(show(Examples(command.output), command.config, command.show)).split("\n"))


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before and after a bare `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _beam_engine(runner: str, options: list[str]):
    try:
        from bert_jax.data.beam import BeamEngine
    except ModuleNotFoundError as error:
        why = f"Apache Beam isn't installed ({error})"
        raise InputError(f"--runner {runner}: {why}; pip install 'bert-jax[beam]'") from None
    return BeamEngine([f"--runner={runner}", *options])
