"""SQuAD 1.1 and 2.0: questions on paragraphs, read in windows (BERT paper, sections 4.2 and 4.3).

Answers are found, and returned, by their tokens' characters in the paragraph, so that an answer is the paragraph's own
text, with its capitals, accents and spaces.
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
from bert_jax.files import storage
from bert_jax.files.printable import say
from bert_jax.models import QuestionAnswering
from bert_jax.tasks import squad_files, squad_metrics
from bert_jax.tasks.base import Feature, check_unnamed
from bert_jax.tasks.classes import counted
from bert_jax.tasks.squad_files import Example, Span
from bert_jax.tasks.tables import NO_TABLES, Table, Tables

# The null odds where no span can be an answer: the original's initial null score.
NO_ANSWER_ODDS = 1e6


@dataclass(frozen=True)
class Document:
    """A paragraph as tokens: their ids, and each token's characters, from `starts` up to, but without, `ends`."""

    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray

    def tokens(self, span: Span) -> Span:
        """The first and the last token that contain any of the characters.

        The original searches the surrounding words for the answer's tokens. It finds the same ones, unless an answer
        begins or ends within a token: there it takes whole words.
        """
        first = min(int(np.searchsorted(self.ends, span[0], side="right")), len(self.ids) - 1)
        return first, max(first, int(np.searchsorted(self.starts, span[1], side="left")) - 1)


@dataclass(frozen=True)
class Window(Feature):
    """A question with a part of its paragraph. `label` is the answer's first and last position, or (0, 0), that of
    [CLS], if the window doesn't contain the whole answer or there is none."""

    document: Document
    first: int
    """The index in the document of the part's first token."""
    offset: int
    """That token's position in the window; the part ends before the last [SEP]."""


@dataclass(frozen=True)
class Answer:
    """One of a question's n best answers; the text "" means no answer."""

    text: str
    start_logit: float
    end_logit: float
    span: Span | None = None
    """The answer's characters in the context."""
    probability: float = 1.0
    """The probability among the n best."""

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


@dataclass(frozen=True)
class Prediction:
    answer: Answer
    n_best: list[Answer]
    null_odds: float | None
    """Version 2.0: the score of "no answer" minus that of the best answer."""


class Squad:
    """The `Task` of SQuAD's files: train-v1.1.json and dev-v1.1.json, or those of v2.0 if `unanswerable`.

    `tables` are splits in memory, used instead of the files, with the data set's columns on the Hub.
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
        # If only data in memory are given, other splits don't exist.
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
        """The questions of a split, by `squad_files.read`. Training questions whose answer isn't at its `answer_start`
        are left out, as in the original, and counted on standard error."""
        file = self._file(split)
        examples = squad_files.read(file, self._config.unanswerable, answers_needed=split != "test")
        if split != "train":
            return examples
        lost = [(e.id, e.answers[0]) for e in examples if e.answers and e.span is None]
        if len(lost) == len(examples):
            raise InputError(f"{file}: no answer is in its paragraph at answer_start; count characters from 0")
        if lost:
            why = f"their answer isn't at its answer_start (the first: id {lost[0][0]!r}, {lost[0][1]!r})"
            say(f"{file}: {len(lost)} of {len(examples)} questions are left out: {why}", file=sys.stderr)
        return [e for e in examples if not e.answers or e.span is not None]

    def features(self, examples: list[Example], tokenizer: Tokenizer, length: int, training: bool) -> list[Window]:
        """The windows of each question, labelled wherever the answers are known, `training` or not."""
        most, layout = self._config.query_length, tokenizer.layout
        special = layout.special_tokens(2)
        if length <= most + special:
            shortest = f"must be more than task.query_length {most} and the {special} special tokens"
            raise InputError(f"sequence_length: is {length}, {shortest}; raise it, or lower that")
        contexts = list(dict.fromkeys(example.context for example in examples))
        documents = dict(zip(contexts, map(_document, tokenizer.encode_with_spans(contexts)), strict=True))
        queries = tokenizer.encode([example.question for example in examples])
        windows = []
        for number, (example, query) in enumerate(zip(examples, queries, strict=True)):
            document, query = documents[example.context], query[:most]
            room = length - special - len(query)
            offset = special - 1 + len(query)
            for first in _firsts(len(document.ids), room, self._config.stride):
                part = document.ids[first : first + room]
                label = _label(example, document, range(first, first + len(part)), offset)
                windows.append(Window(*layout.joined((query, part)), label, number, document, first, offset))
        return windows

    def predict(self, examples: list[Example], features: list[Window], logits: list[np.ndarray]) -> list[Prediction]:
        """The best answer to each question from all its windows. Logits are [tokens, 2]: start and end."""
        grouped = defaultdict(list)
        for window, scores in zip(features, logits, strict=True):
            grouped[window.example].append((window, np.asarray(scores, np.float64)))
        return [self._predicted(e.context, *zip(*grouped[i], strict=True)) for i, e in enumerate(examples)]

    def _predicted(self, context: str, windows: tuple[Window, ...], logits: tuple[np.ndarray, ...]) -> Prediction:
        most = self._config.n_best
        best = list(itertools.islice(self._answers(context, windows, logits), most))
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
        """All possible answers with different texts, the best first."""
        widest = _widest(windows)
        by_window = [self._spans(*arguments) for arguments in zip(windows, logits, widest, strict=True)]
        starts, ends, spans = (np.concatenate(parts) for parts in zip(*by_window, strict=True))
        seen = set()
        for i in np.argsort(-(starts + ends), kind="stable"):
            span = _tidy(context, *map(int, spans[i]))
            text = context[slice(*span)]
            if text and text not in seen:
                seen.add(text)
                yield Answer(text, float(starts[i]), float(ends[i]), span)

    def _spans(self, window: Window, logits: np.ndarray, widest: np.ndarray) -> tuple[np.ndarray, ...]:
        """A window's valid pairs of its n best starts and ends: start logits, end logits, [pairs, 2] characters."""
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
        return counted(kinds.get(example.answers, "with an answer") for example in examples)

    def inputs(self, example: Example) -> tuple[str, str]:
        return example.question, example.context

    def metrics(self, examples: list[Example], predictions: list[Prediction]) -> dict[str, float]:
        """The metrics of the version's evaluation script, by its names; empty where no gold answers are known."""
        pairs = zip(examples, predictions, strict=True)
        known = [(e.answers, p) for e, p in pairs if e.answers is not None]
        golds, answers = [gold for gold, _ in known], [p.answer.text for _, p in known]
        if not known:
            return {}
        if self._config.unanswerable:
            odds = [p.null_odds for _, p in known if p.null_odds is not None]
            return squad_metrics.evaluate_unanswerable(answers, golds, odds)
        return squad_metrics.evaluate(answers, golds)

    def rows(self, examples: list[Example], predictions: list[Prediction]) -> list[dict]:
        """As in `Task`; `right` is an exact match with one of the gold answers, None where they aren't known."""
        return [_row(e, p.answer) for e, p in zip(examples, predictions, strict=True)]

    def submit(self, folder: Path, split: str, examples: list[Example], predictions: list[Prediction]) -> list[Path]:
        """Writes predictions.json, nbest_predictions.json and, for 2.0, null_odds.json."""
        by_id = list(zip((example.id for example in examples), predictions, strict=True))
        contents = {
            "predictions.json": {number: p.answer.text for number, p in by_id},
            "nbest_predictions.json": {number: [_entry(answer) for answer in p.n_best] for number, p in by_id},
        }
        if self._config.unanswerable:
            contents["null_odds.json"] = {number: p.null_odds for number, p in by_id}
        for name, content in contents.items():
            storage.write_whole(folder / name, f"{json.dumps(content, indent=4)}\n".encode())
        return [folder / name for name in contents]


def _document(encoded: tuple[list[int], list[Span]]) -> Document:
    ids, spans = encoded
    starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
    return Document(ids, starts, ends)


def _firsts(tokens: int, room: int, stride: int) -> range:
    """The first token of each window: they leave no gaps, and the last window ends with the last token."""
    stride = min(stride, room)
    return range(0, max(tokens - room, 0) + stride, stride)


def _label(example: Example, document: Document, part: range, offset: int) -> Span | None:
    if example.answers is None or example.answers and example.span is None:
        return None
    first, last = document.tokens(example.span) if example.span else (-1, -1)
    return (first - part.start + offset, last - part.start + offset) if first in part and last in part else (0, 0)


def _widest(windows: tuple[Window, ...]) -> list[np.ndarray]:
    """[tokens] bool for each window: whether it has the most context around the token, among all windows with that
    token. The context is that on the shorter side; of equal windows the first counts. Answers begin only there."""
    sizes = [len(window.input_ids) - window.offset - 1 for window in windows]
    if len(windows) == 1:
        return [np.ones(sizes[0], bool)]
    tokens = windows[-1].first + sizes[-1]
    best_score, best = np.full(tokens, -1.0), np.zeros(tokens, int)
    for i, (window, size) in enumerate(zip(windows, sizes, strict=True)):
        at, part = np.arange(size), slice(window.first, window.first + size)
        score = np.minimum(at, size - 1 - at) + 0.01 * size
        better = score > best_score[part]
        best_score[part] = np.where(better, score, best_score[part])
        best[part] = np.where(better, i, best[part])
    return [best[w.first : w.first + size] == i for i, (w, size) in enumerate(zip(windows, sizes, strict=True))]


def _tidy(context: str, start: int, end: int) -> Span:
    """The span plus combining marks after its last character, which an uncased tokenizer drops, and without white space
    and format characters around it, which SentencePiece's spans include."""
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


def _row(example: Example, answer: Answer) -> dict:
    golds = example.answers if example.answers is None else example.answers or ("",)
    return {
        "text": f"{example.question}\n{example.context}",
        "gold": golds and " / ".join(dict.fromkeys(golds)),
        "predicted": answer.text,
        "right": golds and any(squad_metrics.exact_match(answer.text, gold) for gold in golds),
        "confidence": answer.probability,
    }
