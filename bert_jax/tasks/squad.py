"""SQuAD 1.1 and 2.0: questions on paragraphs, read in windows (paper, sections 4.2 and 4.3).

Answers are found, and given back, by the characters that tokens stand for, so that what is given back is the
paragraph's own text: with its capitals, accents and spaces.
"""

import itertools
import json
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bert_jax.config import HeadConfig, InputError, TaskConfig
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.models import QuestionAnswering
from bert_jax.tasks import squad_files, squad_metrics
from bert_jax.tasks.base import Feature, check_unnamed
from bert_jax.tasks.classes import counted
from bert_jax.tasks.squad_files import Example, Span
from bert_jax.tasks.tables import NO_TABLES, Table, Tables

# Null odds where nothing can be an answer: the original's null score before it has seen a window.
NO_ANSWER_ODDS = 1e6


@dataclass(frozen=True)
class Document:
    """A paragraph in tokens: their ids, and the characters (`starts`, behind the last: `ends`) they stand for."""

    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray

    def tokens(self, span: Span) -> Span:
        """The first and the last token of those that have any of the characters.

        The original searches the words around for the answer's tokens; it finds these, but where an answer begins or
        ends inside of a token: there it keeps the words whole.
        """
        first = min(int(np.searchsorted(self.ends, span[0], side="right")), len(self.ids) - 1)
        return first, max(first, int(np.searchsorted(self.starts, span[1], side="left")) - 1)


@dataclass(frozen=True)
class Window(Feature):
    """A question with a part of its paragraph. `label` is the answer's first and last position, or (0, 0), [CLS]'s,
    where the answer isn't whole in this window or there is none."""

    document: Document
    first: int
    """The document's token that the part begins with."""
    offset: int
    """Its position in the window; the part goes on to the last [SEP]."""


@dataclass(frozen=True)
class Answer:
    """One of a question's n best; the text "" is that it has none."""

    text: str
    start_logit: float
    end_logit: float
    span: Span | None = None
    """Its characters in the context."""
    probability: float = 1.0
    """Among the n best."""

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


@dataclass(frozen=True)
class Prediction:
    answer: Answer
    n_best: list[Answer]
    null_odds: float | None
    """2.0: how much higher "no answer" scores than the best answer."""


class Squad:
    """The `Task` of SQuAD's files: train-v1.1.json and dev-v1.1.json, or v2.0's where `unanswerable`.

    `tables` are splits in memory, in the place of the files, with the columns that the data set has on the Hub.
    """

    head = HeadConfig(QuestionAnswering.kind)
    dev_splits: tuple[str, ...] = ("dev",)

    def __init__(self, config: TaskConfig, labels: tuple[str, ...] = (), tables: Tables = NO_TABLES):
        check_unnamed(config)
        for name in ("query_length", "stride", "n_best", "answer_length"):
            if getattr(config, name) < 1:
                raise InputError(f"task.{name}: is {getattr(config, name)}, must be at least 1")
        self._config, self._tables = config, tables
        self.best_by = "best_f1" if config.unanswerable else "f1"
        # With data in memory alone, a split that isn't given isn't looked for either.
        self.dev_splits = ("dev",) if "dev" in tables or config.dev or config.folder or not tables else ()
        # There is no public test set.
        has_test = "test" in tables or config.test or (config.folder and Path(str(self._file("test"))).is_file())
        self.test_splits: tuple[str, ...] = ("test",) if has_test else ()

    def _file(self, split: str) -> Path | Table:
        if split in self._tables:
            return self._tables[split]
        if named := getattr(self._config, split):
            return Path(named)
        name = f"{split}-v{'2.0' if self._config.unanswerable else '1.1'}.json"
        if self._config.folder is None:
            raise InputError(f"task.folder: names no folder that holds {name}; set it, or name a file: task.{split}")
        return Path(self._config.folder) / name

    def read(self, split: str) -> list[Example]:
        """The questions of a split's file, as `squad_files.read`. Those of "train" whose answer isn't in the paragraph
        where it is said to be are left out, as the original does, and counted on standard error."""
        file = self._file(split)
        examples = squad_files.read(file, self._config.unanswerable, answers_needed=split != "test")
        if split != "train":
            return examples
        lost = [(one.id, one.answers[0]) for one in examples if one.answers and one.span is None]
        if len(lost) == len(examples):
            raise InputError(f"{file}: no answer is in its paragraph at answer_start; count characters from 0")
        if lost:
            why = f"their answer isn't at its answer_start (the first: id {lost[0][0]!r}, {lost[0][1]!r})"
            print(f"{file}: {len(lost)} of {len(examples)} questions are left out: {why}", file=sys.stderr)
        return [one for one in examples if not one.answers or one.span is not None]

    def features(self, examples: list[Example], tokenizer: Tokenizer, length: int, training: bool) -> list[Window]:
        """The windows of each question, labelled wherever an answer is known, `training` or not."""
        most, layout = self._config.query_length, tokenizer.layout
        special = layout.special_tokens(2)
        if length <= most + special:
            shortest = f"must be more than task.query_length {most} and the {special} special tokens"
            raise InputError(f"sequence_length: is {length}, {shortest}; raise it, or lower that")
        contexts = list(dict.fromkeys(one.context for one in examples))
        documents = dict(zip(contexts, map(_document, tokenizer.encode_with_spans(contexts)), strict=True))
        queries = tokenizer.encode([one.question for one in examples])
        windows = []
        for number, (one, query) in enumerate(zip(examples, queries, strict=True)):
            document, query = documents[one.context], query[:most]
            room = length - special - len(query)
            offset = special - 1 + len(query)
            for first in _firsts(len(document.ids), room, self._config.stride):
                part = document.ids[first : first + room]
                label = _label(one, document, range(first, first + len(part)), offset)
                windows.append(Window(*layout.joined((query, part)), label, number, document, first, offset))
        return windows

    def predict(self, examples: list[Example], features: list[Window], logits: list[np.ndarray]) -> list[Prediction]:
        """The best answer of all windows of a question. Logits [tokens, 2] are of an answer's start and end."""
        grouped = defaultdict(list)
        for window, scores in zip(features, logits, strict=True):
            grouped[window.example].append((window, np.asarray(scores, np.float64)))
        return [self._predicted(one, *zip(*grouped[i], strict=True)) for i, one in enumerate(examples)]

    def _predicted(self, one: Example, windows: tuple[Window, ...], logits: tuple[np.ndarray, ...]) -> Prediction:
        most = self._config.n_best
        best = list(itertools.islice(self._answers(one.context, windows, logits), most))
        if not self._config.unanswerable:
            listed = _with_probabilities(best or [Answer("", 0.0, 0.0)])
            return Prediction(listed[0], listed, None)
        null = min(
            (Answer("", float(scores[0, 0]), float(scores[0, 1])) for scores in logits), key=lambda answer: answer.score
        )
        odds = null.score - best[0].start_logit - best[0].end_logit if best else NO_ANSWER_ODDS
        listed = sorted([*best, null], key=lambda answer: -answer.score)[: max(most, 2)]
        listed = _with_probabilities(listed if null in listed else [*listed, null])
        is_null = not best or odds > self._config.null_threshold
        chosen = next(answer for answer in listed if (answer.span is None) == is_null)
        return Prediction(chosen, listed, odds)

    def _answers(self, context: str, windows: tuple[Window, ...], logits: tuple[np.ndarray, ...]) -> Iterator[Answer]:
        """All the answers there can be, no text twice, the best first."""
        widest = _widest(windows)
        found = [self._spans(*of_one) for of_one in zip(windows, logits, widest, strict=True)]
        starts, ends, spans = (np.concatenate(parts) for parts in zip(*found, strict=True))
        seen = set()
        for i in np.argsort(-(starts + ends), kind="stable"):
            span = _tidy(context, *map(int, spans[i]))
            text = context[slice(*span)]
            if text and text not in seen:
                seen.add(text)
                yield Answer(text, float(starts[i]), float(ends[i]), span)

    def _spans(self, window: Window, logits: np.ndarray, widest: np.ndarray) -> tuple[np.ndarray, ...]:
        """Of a window's valid pairs of its n best starts and ends: start logit, end logit, [pairs, 2] characters."""
        ranked = np.argsort(-logits, axis=0, kind="stable")[: self._config.n_best]
        first, last = (grid.ravel() for grid in np.meshgrid(ranked[:, 0], ranked[:, 1], indexing="ij"))
        end = len(window.input_ids) - 1
        valid = (window.offset <= first) & (first <= last) & (last < end) & (last - first < self._config.answer_length)
        first, last = first[valid], last[valid]
        kept = widest[first - window.offset]
        first, last = first[kept], last[kept]
        tokens = window.first - window.offset
        characters = [window.document.starts[first + tokens], window.document.ends[last + tokens]]
        return logits[first, 0], logits[last, 1], np.stack(characters, axis=-1)

    def summary(self, examples: list[Example]) -> str:
        kinds: dict[tuple[str, ...] | None, str | None] = {None: None, (): "no answer"}
        return counted(kinds.get(one.answers, "with an answer") for one in examples)

    def inputs(self, example: Example) -> tuple[str, str]:
        return example.question, example.context

    def metrics(self, examples: list[Example], predictions: list[Prediction]) -> dict[str, float]:
        """Those of the version's evaluation script, under its names; none where no gold answers are known."""
        pairs = zip(examples, predictions, strict=True)
        known = [(one.answers, p) for one, p in pairs if one.answers is not None]
        golds, answers = [gold for gold, _ in known], [p.answer.text for _, p in known]
        if not known:
            return {}
        if self._config.unanswerable:
            odds = [p.null_odds for _, p in known if p.null_odds is not None]
            return squad_metrics.evaluate_unanswerable(answers, golds, odds)
        return squad_metrics.evaluate(answers, golds)

    def rows(self, examples: list[Example], predictions: list[Prediction]) -> list[dict]:
        """`right`: an exact match with one of the gold answers; None where they aren't known."""
        return [_row(one, prediction.answer) for one, prediction in zip(examples, predictions, strict=True)]

    def submit(self, folder: Path, split: str, examples: list[Example], predictions: list[Prediction]) -> list[Path]:
        """Writes predictions.json, nbest_predictions.json and, for 2.0, null_odds.json."""
        by_id = list(zip((one.id for one in examples), predictions, strict=True))
        contents = {
            "predictions.json": {number: p.answer.text for number, p in by_id},
            "nbest_predictions.json": {number: [_entry(answer) for answer in p.n_best] for number, p in by_id},
        }
        if self._config.unanswerable:
            contents["null_odds.json"] = {number: p.null_odds for number, p in by_id}
        for name, content in contents.items():
            (folder / name).write_text(json.dumps(content, indent=4) + "\n")
        return [folder / name for name in contents]


def _document(encoded: tuple[list[int], list[Span]]) -> Document:
    ids, spans = encoded
    starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
    return Document(ids, starts, ends)


def _firsts(tokens: int, room: int, stride: int) -> range:
    """Where windows begin, so that the last one ends with the last token; none leaves a gap."""
    stride = min(stride, room)
    return range(0, max(tokens - room, 0) + stride, stride)


def _label(one: Example, document: Document, part: range, offset: int) -> Span | None:
    if one.answers is None or one.answers and one.span is None:
        return None
    first, last = document.tokens(one.span) if one.span else (-1, -1)
    return (first - part.start + offset, last - part.start + offset) if first in part and last in part else (0, 0)


def _widest(windows: tuple[Window, ...]) -> list[np.ndarray]:
    """Of each window's tokens whether it is the one, of all that have the token, with the most context around it: on
    the side where there is less; of those alike the first. An answer begins where this holds."""
    sizes = [len(window.input_ids) - window.offset - 1 for window in windows]
    if len(windows) == 1:
        return [np.ones(sizes[0], bool)]
    tokens = np.arange(windows[-1].first + sizes[-1])
    firsts, counts = np.array([window.first for window in windows])[:, None], np.array(sizes)[:, None]
    # [windows, tokens]; below 0 outside of the window.
    score = np.minimum(tokens - firsts, firsts + counts - 1 - tokens)
    best = np.where(score < 0, -1, score + 0.01 * counts).argmax(axis=0)
    return [best[w.first : w.first + size] == i for i, (w, size) in enumerate(zip(windows, sizes, strict=True))]


def _tidy(context: str, start: int, end: int) -> Span:
    """A span with the marks (accents) on its last character, which an uncased tokenizer drops, and without white space
    and format characters around it, which SentencePiece's spans have."""
    while end < len(context) and unicodedata.category(context[end])[0] == "M":
        end += 1
    while start < end and _is_blank(context[start]):
        start += 1
    while start < end and _is_blank(context[end - 1]):
        end -= 1
    return start, end


def _is_blank(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) == "Cf"


def _with_probabilities(answers: list[Answer]) -> list[Answer]:
    scores = np.array([answer.score for answer in answers])
    shares = np.exp(scores - scores.max())
    shares = (shares / shares.sum()).tolist()
    return [replace(answer, probability=share) for answer, share in zip(answers, shares, strict=True)]


def _entry(answer: Answer) -> dict:
    logits = {"start_logit": answer.start_logit, "end_logit": answer.end_logit}
    return {"text": answer.text, "probability": answer.probability, **logits}


def _row(one: Example, answer: Answer) -> dict:
    golds = one.answers if one.answers is None else one.answers or ("",)
    return {
        "text": f"{one.question}\n{one.context}",
        "gold": golds and " / ".join(dict.fromkeys(golds)),
        "predicted": answer.text,
        "right": golds and any(squad_metrics.exact_match(answer.text, gold) for gold in golds),
        "confidence": answer.probability,
    }
