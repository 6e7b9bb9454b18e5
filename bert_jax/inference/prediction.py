"""`bert-jax predict`: texts from a file or standard input, in chunks, to JSON lines in their order."""

import contextlib
import dataclasses
import io
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from bert_jax.config import InputError
from bert_jax.convert.pretrained import overflowed
from bert_jax.data.tokenizers import MASK
from bert_jax.devices import compiling
from bert_jax.files import storage
from bert_jax.files.printable import harmless, json_line
from bert_jax.inference import labelling
from bert_jax.inference.bert import Bert

# The most texts, and the most characters, that are read and predicted together.
CHUNK_TEXTS, CHUNK_CHARACTERS = 8192, 1 << 24

# A function from a chunk's texts, or pairs of texts, to a line of JSON for each.
Predict = Callable[[list], Iterable[str]]


def fill_mask(bert: Bert, top: int) -> Predict:
    def predict(texts: list[str]) -> Iterator[str]:
        for text, masks in zip(texts, bert.fill_mask(texts, top), strict=True):
            guesses = [[{"token": g.token, "probability": round(g.probability, 6)} for g in mask] for mask in masks]
            yield _json({"text": text, "masks": guesses})

    return predict


def embed(bert: Bert, **how) -> Predict:
    """`how` are arguments of `Bert.encode`; its `InputError` is raised at once, before anything is read or written."""
    bert.encode([], **how)

    def predict(texts: list[str]) -> Iterator[str]:
        for text, vector in zip(texts, bert.encode(texts, **how), strict=True):
            if not np.isfinite(vector).all():
                raise overflowed(f"{text[:40]!r}")
            # The digits of float32, not those of the float64 that it would become.
            numbers = ", ".join(vector.astype(str))
            yield f'{json_line({"text": text})[:-1]}, "embedding": [{numbers}]}}'

    return predict


def classify(bert: Bert, second: str | None) -> Predict:
    def predict(lines: list[str]) -> Iterator[str]:
        split = [parts(line, second) for line in lines]
        results: dict = {}
        for pairs in (False, True):
            chosen = [i for i, (_, pair) in enumerate(split) if (pair is not None) == pairs]
            columns = list(zip(*(split[i] for i in chosen), strict=True))[: 1 + pairs]
            results |= dict(zip(chosen, bert.classify(*columns), strict=True)) if chosen else {}
        for i, (text, pair) in enumerate(split):
            inputs = {"text": text} if pair is None else {"text": text, "pair": pair}
            yield _json(inputs | _rounded(dataclasses.asdict(results[i])))

    return predict


def tag(bert: Bert, second: str | None) -> Predict:
    def predict(lines: list[str]) -> Iterator[str]:
        texts, predicates = zip(*(parts(line, second) for line in lines), strict=True)
        tagged = bert.tag(texts, None if None in predicates else predicates)
        for text, predicate, spans in zip(texts, predicates, tagged, strict=True):
            inputs = {"text": text} if predicate is None else {"text": text, "predicate": predicate}
            yield _json(inputs | {"spans": [_rounded(dataclasses.asdict(span)) for span in spans]})

    return predict


def answer(bert: Bert, second: str | None) -> Predict:
    def predict(lines: list[str]) -> Iterator[str]:
        questions, contexts = zip(*(parts(line, second) for line in lines), strict=True)
        for question, answered in zip(questions, bert.answer(questions, contexts), strict=True):
            values = {name: value for name, value in dataclasses.asdict(answered).items() if value is not None}
            values["answer"] = values.pop("text")
            yield _json({"question": question} | _rounded(values))

    return predict


def parts(line: str | tuple[str, str | None], second: str | None) -> tuple[str, str | None]:
    """The texts before and after a line's first tab; without a tab, the line and `second`. A pair stays as it is."""
    if isinstance(line, tuple):
        return line
    first, tab, after = line.partition("\t")
    return first, after if tab else second


def _json(values: dict) -> str:
    try:
        return json_line(values)
    except ValueError:  # JSON has no NaN.
        raise overflowed(f"{(values.get('text') or values['question'])[:40]!r}") from None


def _rounded(values: dict) -> dict:
    return {name: _round(value) for name, value in values.items() if value != {}}


def _round(value):
    if isinstance(value, dict):
        return {name: _round(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_round(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def check_tag(bert: Bert, line: str, second: str | None) -> None:
    """Raises `InputError` for a line without the predicate that the model needs, or with one that it doesn't take."""
    labelling.predicate_of(bert.run, *parts(line, second))


def needs_context(line: str, second: str | None) -> None:
    """Raises `InputError` for a line that isn't a question with a context."""
    question, context = parts(line, second)
    if not question.strip() or not (context or "").strip():
        raise InputError(f"{line!r}: must be a question, a tab, and the text to look in (or give that with --context)")


def needs_mask(text: str) -> None:
    """Raises `InputError` for a text that has nothing to fill."""
    if MASK not in text:
        raise InputError(f"{text!r}: holds no {MASK}")


def count(file: Path, check: Callable[[str], object]) -> int:
    """Reads a file once and checks its texts; returns how many it has."""
    return sum(1 for _ in texts(file, check))


def texts(file: Path | None, check: Callable[[str], object]) -> Iterator[str]:
    """Each line of a file (None: of standard input), an empty one too.

    Raises `InputError`, with the number of the line, for what isn't UTF-8 and for what `check` raises it for.
    """
    if file and not file.is_file():
        raise InputError(f"{file}: no such file")
    with open(file, "rb") if file else contextlib.nullcontext(sys.stdin.buffer) as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file or 'standard input'}, line {number}"
            try:
                # Editors on Windows write a byte order mark first.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                check(text)
            except UnicodeDecodeError:
                raise InputError(f"{where}: not UTF-8; convert it") from None
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            yield text


def run(
    predict: Predict,
    texts: Iterable[str],
    output: Path | None,
    total: int | None,
    progress: bool,
    second: str | None = None,
) -> None:
    """Writes a line for each text to a file (None: to standard output), in memory that doesn't grow with the texts.

    The file is there when it is whole; on standard output, where a text can't be read, come the results of those before
    it. `total` is for the progress bar, on standard error.
    """
    with (
        written(output) as target,
        tqdm(total=total, unit=" texts", disable=not progress) as bar,
        compiling.shown_in(bar),
        warnings_in_one_line(),
    ):
        for chunk in chunks(texts, second):
            for line in predict(chunk):
                target.write(line + "\n")
            target.flush()
            bar.update(len(chunk))


def chunks(texts: Iterable[Any], second: str | None = None) -> Iterator[list[Any]]:
    """The texts, or pairs of texts, in lists of bounded size; `second` is the second text of each that has none."""
    chunk: list[Any] = []
    size = 0
    try:
        for text in texts:
            chunk.append(text)
            parts = (*text, second) if isinstance(text, tuple) else (text, second)
            size += sum(len(part) for part in parts if isinstance(part, str))  # What isn't text is refused later.
            if len(chunk) >= CHUNK_TEXTS or size >= CHUNK_CHARACTERS:
                yield chunk
                chunk, size = [], 0
    except InputError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


@contextlib.contextmanager
def written(output: Path | None) -> Iterator[TextIO]:
    """What to write into: standard output, or a file that is there once it is whole. Line ends stay as given."""
    with (
        storage.named_if_full(output or Path("standard output")),
        storage.whole_file(output) if output else contextlib.nullcontext() as file,
    ):
        target = io.TextIOWrapper(file, encoding="utf-8", newline="") if file else sys.stdout
        yield target
        target.flush()


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    before = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: tqdm.write(f"bert-jax: {harmless(str(message))}", file=sys.stderr)
    try:
        yield
    finally:
        warnings.showwarning = before
