"""Packs texts of many lengths into batches of few shapes, several texts in a row: little padding, few compilations."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple, Protocol

import numpy as np

# The shortest rows; each further length is twice as long, up to what the model reads.
SHORTEST = 32
# A row of n positions holds at most n / this many texts, so that the outputs for its texts have a fixed shape.
POSITIONS_PER_TEXT = 4


class Text(Protocol):
    """A model's input: a text, or the choices of a multiple-choice example."""

    @property
    def texts(self) -> list[tuple[list[int], list[int]]]:
        """(ids, token types) of the text, or of each choice, with special tokens and without padding."""


@dataclass(frozen=True)
class Rows:
    """A batch: for each row the numbers of its texts, one after the other. It has `count` rows, empty ones included."""

    length: int
    count: int
    texts: list[list[int]]


def rows_of(lengths: Sequence[int], longest: int, positions: int, parts: int = 1) -> Iterator[Rows]:
    """Batches of about `positions` positions with all texts, given their lengths; rows are at most `longest` long.

    The length of a row is the first of `SHORTEST`, twice that and so on that holds its longest text; the row is filled
    with the longest of the other texts that fit. A batch has `positions // length` rows; the only batch of a length has
    the next power of two; both are multiples of `parts`. With 1,024 positions there are 6, 5, 4, 3 and 2 possible
    numbers of rows for the lengths 32 to 512, 20 shapes in all, and a long list of texts uses one or two for each
    length that occurs.
    """
    for length, packed in groupby(_packed(lengths, longest), key=lambda row: row[0]):
        rows = [texts for _, texts in packed]
        full = max(positions // length // parts, 1) * parts
        for start in range(0, len(rows), full):
            count = full if len(rows) > full else parts * power_of_two(-(-len(rows) // parts), full // parts)
            yield Rows(length, count, rows[start : start + full])


def _packed(lengths: Sequence[int], longest: int) -> Iterator[tuple[int, list[int]]]:
    """The length of each row and the numbers of its texts, long rows first."""
    waiting = _Waiting(lengths)
    while waiting.lengths:
        row_length = bucket(waiting.lengths[-1], longest)
        yield row_length, waiting.row(row_length)


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """The numbers of the texts in each row of `row_length`, which no text exceeds; each takes the longest that fit."""
    waiting, rows = _Waiting(lengths), []
    while waiting.lengths:
        rows.append(waiting.row(row_length))
    return rows


def most_texts(row_length: int) -> int:
    """The most texts in a row."""
    return max(row_length // POSITIONS_PER_TEXT, 1)


class _Waiting:
    """The texts that aren't in a row yet, by their lengths."""

    def __init__(self, lengths: Sequence[int]):
        self._numbers = defaultdict(list)
        for number in reversed(range(len(lengths))):
            self._numbers[lengths[number]].append(number)
        self.lengths = sorted(self._numbers)

    def row(self, row_length: int) -> list[int]:
        """Fills a row: takes the longest text that fits, again and again."""
        row: list[int] = []
        spare = row_length
        while len(row) < most_texts(row_length) and (at := bisect_right(self.lengths, spare)):
            length = self.lengths[at - 1]
            row.append(self._numbers[length].pop())
            spare -= length
            if not self._numbers[length]:
                del self.lengths[at - 1]
        return row


def bucket(length: int, longest: int) -> int:
    """The least length of a row, `SHORTEST` times a power of two or `longest`, that holds a text of this length."""
    return power_of_two(max(length, SHORTEST), longest)


def power_of_two(least: int, most: int) -> int:
    """The smallest power of two that is at least `least`, but at most `most`."""
    return min(1 << (least - 1).bit_length(), most)


def lengths_of(texts: Sequence[Text]) -> list[int]:
    """The number of tokens of each text; for multiple choice, that of the longest choice."""
    return [max(len(ids) for ids, _ in text.texts) for text in texts]


class Placed(NamedTuple):
    """The position of a text in a batch."""

    row: int
    slot: int
    """The number of texts before it in the row."""
    start: int
    """The position of its first token."""
    text: int
    """The number of the text."""


def placed(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> Iterator[Placed]:
    """The positions of the texts in each row, one after the other, given the lengths of all texts."""
    for row, texts in enumerate(rows):
        start = 0
        for slot, text in enumerate(texts):
            yield Placed(row, slot, start, text)
            start += lengths[text]


def fill(
    texts: Sequence[Text], placements: Sequence[Placed], rows: int, length: int, pad_id: int, choices: bool = False
) -> dict[str, np.ndarray]:
    """The model's inputs for a batch of rows of several texts.

    Args:
      texts: all texts, also those in other batches.
      placements: the positions of this batch's texts.
      rows: the number of rows in the batch.
      length: the number of positions in a row.
      pad_id: the id of padding.
      choices: whether the texts are multiple-choice examples, all with the first one's number of choices.

    Returns:
      int32 [rows, length], for multiple choice [rows, choices, length]: `input_ids`, `token_type_ids`,
      `attention_mask`, `position_ids` (from 0 in each text), and `sequence_ids` (the text's slot; -1 for padding). And
      `first_tokens` [rows, texts] or [rows, choices, texts]: the positions where the row's texts begin, then 0.
    """
    lines = len(texts[0].texts) if choices else 1  # Lines of a row.
    shape, slots = (rows, lines) if choices else (rows,), most_texts(length)
    parts = [(p, choice, *inputs) for p in placements for choice, inputs in enumerate(texts[p.text].texts)]
    starts = [(p.row * lines + choice, p.slot, p.start) for p, choice, *_ in parts]
    line, slot, start = np.array(starts, np.int64).reshape(-1, 3).T
    sizes = np.array([len(ids) for *_, ids, _ in parts], np.int64)
    within = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    at = np.repeat(line * length + start, sizes) + within

    def tokens(empty: int, values) -> np.ndarray:
        array = np.full(rows * lines * length, empty, np.int32)
        array[at] = values
        return array.reshape(*shape, length)

    first_tokens = np.zeros((rows * lines, slots), np.int32)
    first_tokens[line, slot] = start
    return {
        "input_ids": tokens(pad_id, np.fromiter(chain.from_iterable(ids for *_, ids, _ in parts), np.int32)),
        "token_type_ids": tokens(0, np.fromiter(chain.from_iterable(types for *_, types in parts), np.int32)),
        "attention_mask": tokens(0, 1),
        "position_ids": tokens(0, within),
        "sequence_ids": tokens(-1, np.repeat(slot, sizes)),
        "first_tokens": first_tokens.reshape(*shape, slots),
    }
