"""Makes batches of features: several texts in a row, for little padding, in few shapes, for few compilations.

Which texts share a batch is drawn at random, as in the published recipes. A step's batch is a function of (features,
seed, step): each epoch is a new permutation, so any start is O(n).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from bert_jax.config import HeadConfig
from bert_jax.data import packing
from bert_jax.models import kind_of
from bert_jax.tasks.base import Choices, Feature

Batch = dict[str, np.ndarray]
# From the number of rows in a global batch to the rows that this process makes, as ascending ranges.
Rows = Callable[[int], Sequence[range]]
# The number of rows in a batch, and their length.
Shape = tuple[int, int]

# Shapes, each of which is a program to compile, are added while each saves at least this share of the computation, up
# to this number; they are chosen by this many batches at the start of an epoch.
SAVED, MOST_SHAPES, SAMPLE = 0.005, 8, 1000
# The number of possible lengths of a row, and the largest as a multiple of the longest text.
LENGTHS, LONGEST = 12, 1.5
# The length of a row, about, at which attention doubles a token's cost, in a model of hidden size 384.
DOUBLED = 2048


class Batches:
    """Batches of `size` features, whose number of rows is a multiple of `parts`.

    Besides the encoder's inputs, a batch has `first_tokens` [rows, texts], the positions where a row's texts begin, and
    `labels` in the form of the kind of `head` (`bert_jax.models.Head.no_labels`). For multiple choice, inputs are
    [rows, choices, length]; the choices of an example are at the same positions.
    """

    def __init__(self, features: Sequence[Feature | Choices], size: int, head: HeadConfig, pad_id: int, parts: int = 1):
        self.features, self._size, self._pad_id, self._parts = features, size, pad_id, parts
        self._head, self._kind = head, kind_of(head)
        self._lengths = packing.lengths_of(features)

    def __len__(self) -> int:
        """Number of batches in an epoch; the last one may be smaller."""
        return -(-len(self.features) // self._size)

    def train(self, seed: int, start: int, end: int, rows: Rows) -> Iterator[Batch]:
        """The batches of the steps from `start` up to, but without, `end`."""
        for step in range(start, end):
            yield self._batch(*self._packed(self.epoch(seed, step // len(self))[step % len(self)]), rows)

    def largest(self) -> Batch:
        """A global batch without texts, of the largest usual shape."""
        return self._batch(self.shapes[max(len(self.shapes) - 2, 0)], [], lambda rows: [range(rows)])

    @lru_cache(maxsize=2)  # noqa: B019
    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The numbers of the features in each batch of an epoch."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.features))
        return [order[i : i + self._size] for i in range(0, len(order), self._size)]

    @cached_property
    def shapes(self) -> list[Shape]:
        """The shapes of batches. The last, with a row for each text, is for batches that fit in no other."""
        longest = max(self._lengths)
        step = -(-longest * LONGEST // (LENGTHS * 8)) * 8
        menu = [int(step) * n for n in range(1, LENGTHS + 1)]
        batches = self.epoch(0, 0)[:SAMPLE]
        needed = [{length: self._whole(len(self._rows(batch, length))) for length in menu} for batch in batches]
        offered = sorted({(rows, length) for each in needed for length, rows in each.items() if rows})
        fits = [[0 < each[length] <= rows for each in needed] for rows, length in offered]
        costs = np.where(fits, np.array([_cost(shape) for shape in offered])[:, None], np.inf)
        shapes = [(self._whole(self._size), next(length for length in menu if length >= longest))]
        best = np.full(len(batches), _cost(shapes[0]))
        while len(shapes) <= MOST_SHAPES:
            totals = np.minimum(best, costs).sum(1)
            cheapest = int(totals.argmin())
            if totals[cheapest] > (1 - SAVED) * best.sum():
                break
            shapes.insert(0, offered[cheapest])
            best = np.minimum(best, costs[cheapest])
        return sorted(shapes[:-1], key=_cost) + shapes[-1:]

    def _rows(self, chosen: np.ndarray, length: int) -> list[list[int]]:
        """The features in each row, if rows have this length; no row at all if a feature is longer."""
        lengths = [self._lengths[i] for i in chosen]
        packed = packing.pack(lengths, length) if max(lengths) <= length else []
        return [[int(chosen[i]) for i in texts] for texts in packed]

    def _whole(self, rows: int) -> int:
        """The number of rows, rounded up to a multiple of the parts."""
        return -(-rows // self._parts) * self._parts

    def _packed(self, chosen: np.ndarray) -> tuple[Shape, list[list[int]]]:
        """The first shape in which a batch fits, and the features in each of its rows."""
        fitting = ((shape, self._rows(chosen, shape[1])) for shape in self.shapes)
        return next((shape, packed) for shape, packed in fitting if 0 < len(packed) <= shape[0])

    def _batch(self, shape: Shape, packed: list[list[int]], rows: Rows) -> Batch:
        count, length = shape
        own = [packed[i] if i < len(packed) else [] for run in rows(count) for i in run]  # This process's rows.
        placements = list(packing.placed(own, self._lengths))
        batch = packing.fill(self.features, placements, len(own), length, self._pad_id, self._kind.choices)
        batch["labels"] = self._kind.no_labels(self._head, len(own), length, packing.most_texts(length))
        for row, slot, start, number in placements:
            label = self.features[number].label
            if label is not None:
                self._kind.write_label(batch["labels"][row], slot, start, label)
        return batch


def _cost(shape: Shape) -> float:
    rows, length = shape
    return rows * length * (1 + length / DOUBLED)
