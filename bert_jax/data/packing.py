"""Packs texts of many lengths into batches of few shapes, several texts in a row: little padding, few compilations."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# The shortest rows; each further length is twice as long, up to what the model reads.
SHORTEST = 32
# A row of n positions holds at most n / this many texts, so that the outputs for its texts have a fixed shape.
POSITIONS_PER_TEXT = 4


@dataclass(frozen=True)
class Rows:
    """A batch: for each row the numbers of its texts, one after the other. It has `count` rows, empty ones included."""

    length: int
    count: int
    texts: list[list[int]]


def rows_of(lengths: Sequence[int], longest: int, tokens: int) -> Iterator[Rows]:
    """Batches of about `tokens` positions with all texts, given their lengths; rows are at most `longest` long.

    The length of a row is the first of `SHORTEST`, twice that and so on that holds its longest text; the row is filled
    with the longest of the other texts that fit. A batch has `tokens // length` rows; the only batch of a length has
    the next power of two. With 1,024 tokens there are 6, 5, 4, 3 and 2 possible numbers of rows for the lengths 32 to
    512, 20 shapes in all, and a long list of texts uses one or two for each length that occurs.
    """
    batch: list[list[int]] = []
    length = full = 0
    was_full = False
    for row_length, row in _packed(lengths, longest):
        if row_length != length:
            if batch:
                yield Rows(length, full if was_full else power_of_two(len(batch), full), batch)
            batch, length, full, was_full = [], row_length, max(tokens // row_length, 1), False
        batch.append(row)
        if len(batch) == full:
            yield Rows(length, full, batch)
            batch, was_full = [], True
    if batch:
        yield Rows(length, full if was_full else power_of_two(len(batch), full), batch)


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


def arrays(rows: Rows, ids: Sequence[list[int]], mean: bool, skipped: int) -> dict[str, np.ndarray]:
    """The encoder's inputs for a batch, and the weights that make each text's vector of its tokens' vectors.

    `input_ids`, `position_ids` and `sequence_ids` are int32 [rows, length], where padding has sequence id -1;
    `weights` is float32 [rows, texts of a row, length]: the mean over a text's tokens after the first `skipped`, or 1
    at its first token.
    """
    shape = rows.count, rows.length
    input_ids, position_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    sequence_ids = np.full(shape, -1, np.int32)
    weights = np.zeros((rows.count, most_texts(rows.length), rows.length), np.float32)
    counting = np.arange(rows.length)
    for row, texts in enumerate(rows.texts):
        start = 0
        for number, text in enumerate(texts):
            length = len(ids[text])
            at = slice(start, start + length)
            input_ids[row, at] = ids[text]
            position_ids[row, at] = counting[:length]
            sequence_ids[row, at] = number
            if mean:
                weights[row, number, start + skipped : start + length] = 1 / max(length - skipped, 1)
            else:
                weights[row, number, start] = 1
            start += length
    return dict(input_ids=input_ids, position_ids=position_ids, sequence_ids=sequence_ids, weights=weights)
