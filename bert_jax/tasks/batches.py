"""Features to batches: several texts in a row, so that little is padding, in few shapes, so that little compiles.

Which texts share a batch is drawn at random, as the recipes have it. Any step's batch is a function of (features, seed,
step): an epoch is a permutation of its own, so any start is O(n).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from bert_jax.config import HeadConfig
from bert_jax.data import packing
from bert_jax.models import kind_of
from bert_jax.tasks.base import Choices, Feature

Batch = dict[str, np.ndarray]
# The rows to make of a global batch of so many, as ascending runs.
Rows = Callable[[int], Sequence[range]]
# Rows of a batch, and their length.
Shape = tuple[int, int]

# Shapes are added as long as each saves this share of what is computed, or there are so many: each is a program to
# compile. They are chosen for the first batches, so many, of an epoch.
SAVED, MOST_SHAPES, SAMPLE = 0.005, 8, 1000
# Rows have one of so many lengths, up to this many times the longest text.
LENGTHS, LONGEST = 12, 1.5
# What a token costs grows with the length of its row, and is twice the least at about this: attention's part, in a
# model 384 wide.
DOUBLED = 2048


class Batches:
    """Batches of `size` features, in a multiple of `parts` rows.

    Beside the encoder's inputs a batch has `first_tokens` [rows, texts], where a row's texts begin, and `labels`, as
    the kind of `head` has them (`bert_jax.models.Head.no_labels`). Of multiple choice, inputs are
    [rows, choices, length]; the choices of an example stand at the same place.
    """

    def __init__(self, features: Sequence[Feature | Choices], size: int, head: HeadConfig, pad_id: int, parts: int = 1):
        self.features, self._size, self._pad_id, self._parts = features, size, pad_id, parts
        self._head, self._kind = head, kind_of(head)
        self._lengths = packing.lengths_of(features)

    def __len__(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return -(-len(self.features) // self._size)

    def train(self, seed: int, start: int, end: int, rows: Rows) -> Iterator[Batch]:
        """The batches of the steps from `start` to before `end`."""
        for step in range(start, end):
            yield self._batch(*self._packed(self.epoch(seed, step // len(self))[step % len(self)]), rows)

    def largest(self) -> Batch:
        """A global batch without texts, of the largest shape that batches usually have."""
        return self._batch(self.shapes[max(len(self.shapes) - 2, 0)], [], lambda rows: [range(rows)])

    @lru_cache(maxsize=2)  # noqa: B019
    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as numbers of features."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.features))
        return [order[i : i + self._size] for i in range(0, len(order), self._size)]

    @cached_property
    def shapes(self) -> list[Shape]:
        """Those that batches have, the last one for what fits in no other: a row for each text."""
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
            found = int(totals.argmin())
            if totals[found] > (1 - SAVED) * best.sum():
                break
            shapes.insert(0, offered[found])
            best = np.minimum(best, costs[found])
        return sorted(shapes[:-1], key=_cost) + shapes[-1:]

    def _rows(self, chosen: np.ndarray, length: int) -> list[list[int]]:
        """The features in each row of a length; of none where one of them is longer."""
        lengths = [self._lengths[i] for i in chosen]
        packed = packing.pack(lengths, length) if max(lengths) <= length else []
        return [[int(chosen[i]) for i in texts] for texts in packed]

    def _whole(self, rows: int) -> int:
        return -(-rows // self._parts) * self._parts

    def _packed(self, chosen: np.ndarray) -> tuple[Shape, list[list[int]]]:
        """The shape of a batch, the first in which it fits, and the features in each of its rows."""
        fitting = ((shape, self._rows(chosen, shape[1])) for shape in self.shapes)
        return next((shape, packed) for shape, packed in fitting if 0 < len(packed) <= shape[0])

    def _batch(self, shape: Shape, packed: list[list[int]], rows: Rows) -> Batch:
        count, length = shape
        here = [packed[i] if i < len(packed) else [] for run in rows(count) for i in run]
        placements = list(packing.placed(here, self._lengths))
        batch = packing.fill(self.features, placements, len(here), length, self._pad_id, self._kind.choices)
        batch["labels"] = self._kind.no_labels(self._head, len(here), length, packing.most_texts(length))
        for row, slot, start, number in placements:
            label = self.features[number].label
            if label is not None:
                self._kind.write_label(batch["labels"][row], slot, start, label)
        return batch


def _cost(shape: Shape) -> float:
    rows, length = shape
    return rows * length * (1 + length / DOUBLED)
