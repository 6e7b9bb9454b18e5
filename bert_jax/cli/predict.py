"""`bert-jax predict`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

import bert_jax
from bert_jax.cli.options import Flag
from bert_jax.config import InputError, MeshConfig
from bert_jax.config.models import Dtype
from bert_jax.files.printable import say

Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Texts = tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="[TEXT ...]", help_behavior_hint="")]]


@dataclass(frozen=True, kw_only=True)
class Predict:
    """The options that all tasks have."""

    NAME: ClassVar[str]
    """The task's name in `bert_jax.predict`."""

    text: Texts = ()
    """The texts; without them and --input, standard input."""
    model: str
    """A workdir, a checkpoint's folder or a Hugging Face folder."""
    dtype: Dtype | None = None
    """The type of matrix products (None: the model's own). On a CPU bfloat16 takes AVX-512 BF16 or AMX."""
    input: File = None
    """A UTF-8 file with a text on each line."""
    output: File = None
    """The file for the results, as JSON lines; without it, standard output."""
    overwrite: Flag = False
    """Replace the output file if it exists."""

    @property
    def second(self) -> str | None:
        """The second text for all texts that don't have their own."""
        return None

    def options(self) -> dict[str, Any]:
        """The task's options for `bert_jax.predict`."""
        return {}


@dataclass(frozen=True, kw_only=True)
class FillMask(Predict):
    """The most probable tokens for each [MASK]."""

    NAME = "fill-mask"

    top: int = 5
    """The number of guesses for each [MASK]."""

    def options(self) -> dict[str, Any]:
        return {"top": self.top}


@dataclass(frozen=True, kw_only=True)
class Embed(Predict):
    """A vector for each text. Defaults are what the model's folder says, else the mean, not normalized."""

    NAME = "embed"

    pooling: Literal["mean", "cls"] | None = None
    """The mean over all tokens, or the vector of [CLS]."""
    normalize: Flag = False
    """Scale each vector to length 1."""
    no_normalize: Flag = False
    """Don't scale vectors, whatever the model's folder says."""
    prompt_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The name of the model's prompt to put before each text."""
    prompt: Text = None
    """A text to put before each text instead."""

    def options(self) -> dict[str, Any]:
        if self.normalize and self.no_normalize:
            raise InputError("--normalize, --no-normalize: give one of them")
        normalize = self.normalize if self.normalize or self.no_normalize else None
        how = {name: getattr(self, name) for name in ("pooling", "prompt_name", "prompt")}
        return how | {"normalize": normalize}


@dataclass(frozen=True, kw_only=True)
class Classify(Predict):
    """The class, the labels, or the value of each text or pair of texts."""

    NAME = "classify"

    pair: Text = None
    """The second text of all pairs; without it, each line may have its own, after a tab."""
    columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME]")] = ()
    """--input is a table (CSV, TSV, JSON lines), and these are its columns of texts, or of texts and second texts.
    The output is the table with columns added, in the form that the name of --output says: .csv, .tsv or .jsonl."""

    @property
    def second(self) -> str | None:
        return self.pair


@dataclass(frozen=True, kw_only=True)
class Tag(Predict):
    """The named entities, or other spans, in each text."""

    NAME = "tag"

    predicate: Annotated[str | None, tyro.conf.arg(metavar="WORD")] = None
    """For semantic roles, the word whose roles are tagged; without it, each line may have its own, after a tab."""

    @property
    def second(self) -> str | None:
        return self.predicate


@dataclass(frozen=True, kw_only=True)
class Answer(Predict):
    """The answer to each question."""

    NAME = "answer"

    context: Text = None
    """The text in which all answers are searched; without it, each line may have its own, after a tab."""

    @property
    def second(self) -> str | None:
        return self.context


TASKS = (FillMask, Embed, Classify, Tag, Answer)


def run(arguments: list[str]) -> None:
    names: dict[str, Callable[..., Predict]] = {task.NAME: task for task in TASKS}
    description = "Uses a trained model on texts, on all devices."
    command: Predict = tyro.extras.subcommand_cli_from_dict(
        names, prog="bert-jax predict", description=description, args=arguments
    )
    _check(command)
    options = command.options()
    from bert_jax.devices import compiling, program_cache
    from bert_jax.inference import prediction, scoring
    from bert_jax.runs.prediction import predictor

    compiling.begin()
    program_cache.keep_programs()
    # Texts are checked before the model is loaded and anything is written.
    checks: dict[str, Callable[[str], object]] = {
        "fill-mask": prediction.needs_mask,
        "answer": lambda line: prediction.needs_context(line, command.second),
    }
    check = checks.get(command.NAME, lambda _: None)
    for text in command.text:
        check(text)
    if isinstance(command, Classify) and command.columns and command.input:
        rows, texts_of_rows = scoring.read(command.input, command.columns)
        bert = bert_jax.load(command.model, MeshConfig(), command.dtype)
        scoring.run(bert, rows, texts_of_rows, command.output, command.pair)
        return
    total = prediction.count(command.input, check) if command.input else len(command.text)
    bert = bert_jax.load(command.model, MeshConfig(), command.dtype)
    if isinstance(command, FillMask) and command.text and not command.output and sys.stdout.isatty():
        _print_filled(bert, list(command.text), command.top)
        return
    # Checks that need the model.
    checks |= {"fill-mask": bert.masked_ids, "tag": lambda line: prediction.check_tag(bert, line, command.second)}
    check = checks.get(command.NAME, check)
    for text in command.text:
        check(text)
    texts = command.text or prediction.texts(command.input, check)
    predict = predictor(bert, command.NAME, command.second, **options)
    prediction.run(predict, texts, command.output, total or None, not command.text, command.second)


def _check(command: Predict) -> None:
    for text in (*command.text, *filter(None, (getattr(command, "prompt", None), command.second))):
        try:
            text.encode()
        except UnicodeEncodeError:  # Python has replaced undecodable bytes by surrogates.
            raise InputError(f"{text!r}: not UTF-8; convert it") from None
    if command.text and command.input:
        raise InputError("give texts, or --input with a file of them, not both")
    if isinstance(command, Classify) and command.columns and (not command.input or len(command.columns) == 2):
        if not command.input:
            raise InputError("--columns: are those of a table; give it with --input")
        if command.pair is not None:
            raise InputError("--pair: is a column's, by --columns; leave one of them out")
    if not command.text and not command.input and sys.stdin.isatty():
        raise InputError("give texts, --input with a file of them, or pipe them in")
    if command.output and command.output.exists() and not command.overwrite:
        raise InputError(f"{command.output}: exists; choose another, or --overwrite")
    if command.output and command.output.exists() and not command.output.is_file():
        raise InputError(f"{command.output}: a folder or a device, so it isn't overwritten; choose another")
    if command.output and not command.output.absolute().parent.is_dir():
        raise InputError(f"{command.output}: there is no folder {command.output.parent}; make it first")
    if isinstance(command, FillMask) and command.top < 1:
        raise InputError(f"--top: is {command.top}, must be at least 1")


def _print_filled(bert, texts: list[str], top: int) -> None:
    """Prints the guesses for a person to read."""
    for text, masks in zip(texts, bert.fill_mask(texts, top), strict=True):
        say(text)
        for guesses in masks:
            say("  " + ", ".join(f"{guess.token} {guess.probability:.1%}" for guess in guesses))
