"""Features to batches: of texts of about one length, so that little is padding, in few shapes, so that little compiles.

Any step's batch is a function of (features, seed, step): an epoch is a permutation of its own, so any start is O(n).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from bert_jax.tasks.base import NO_LABEL, Feature

Batch = dict[str, np.ndarray]
# The rows to make of a global batch of so many, as ascending runs.
Rows = Callable[[int], Sequence[range]]

# Batches whose examples are sorted by their length together: enough to save most padding, and at most a part of the
# epoch, so that other examples meet in each.
WINDOW, WINDOWS = 100, 4
# Lengths are added until less than this share of the tokens is padding, or there are so many of them, or one for every
# few batches: each is a program to compile.
PADDING, MOST_LENGTHS, BATCHES_A_LENGTH = 0.08, 16, 4


class Batches:
    """Batches of `size` features. `kind` is the head's; `floating` where labels are numbers, of a regression."""

    def __init__(self, features: list[Feature], size: int, kind: str, pad_id: int, floating: bool = False):
        self.features, self._size, self._kind, self._pad_id = features, size, kind, pad_id
        self._floating = floating
        self._lengths = np.array([_length(feature) for feature in features])

    def length(self, number: int) -> int:
        """Of a feature, in tokens."""
        return int(self._lengths[number])

    def __len__(self) -> int:
        """Batches of an epoch; the last one may be filled up with empty rows."""
        return -(-len(self.features) // self._size)

    def train(self, seed: int, start: int, end: int, rows: Rows) -> Iterator[Batch]:
        """The batches of the steps from `start` to before `end`."""
        for step in range(start, end):
            yield self._batch(self._epoch(seed, step // len(self))[step % len(self)], rows)

    def in_order(self, rows: Rows) -> Iterator[tuple[np.ndarray, Batch]]:
        """All features once, by length, each batch with the numbers of its features."""
        for chosen in self._cut(np.argsort(-self._lengths, kind="stable")):
            yield chosen, self._batch(chosen, rows)

    @lru_cache(maxsize=2)  # noqa: B019
    def _epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as numbers of features."""
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(self.features))
        width = self._size * min(WINDOW, -(-len(self) // WINDOWS))
        windows = [order[i : i + width] for i in range(0, len(order), width)]
        batches = [b for w in windows for b in self._cut(w[np.argsort(-self._lengths[w], kind="stable")])]
        return [batches[i] for i in random.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[i : i + self._size] for i in range(0, len(order), self._size)]

    @cached_property
    def lengths(self) -> list[int]:
        """The lengths that batches are padded to, ascending."""
        batches = self._epoch(0, 0)
        longest = np.array([self._lengths[batch].max() for batch in batches])
        tokens = self._lengths.sum()
        rows = np.array([len(batch) for batch in batches])
        for most in range(1, min(MOST_LENGTHS, -(-len(batches) // BATCHES_A_LENGTH)) + 1):
            found = best_lengths(longest, most)
            places = (np.array(found)[np.searchsorted(found, longest)] * rows).sum()
            if 1 - tokens / places < PADDING:
                break
        return found

    def _batch(self, chosen: np.ndarray, rows: Rows) -> Batch:
        length = self.lengths[np.searchsorted(self.lengths, self._lengths[chosen].max())]
        places = [i for run in rows(self._size) for i in run]
        features = [self.features[chosen[i]] if i < len(chosen) else None for i in places]
        first = self.features[chosen[0]].input_ids
        shape = (len(features), len(first), length) if isinstance(first[0], list) else (len(features), length)
        batch = {name: np.zeros(shape, np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
        batch["input_ids"][:] = self._pad_id
        batch["labels"] = labels = self._no_labels(len(features), length)
        for row, feature in enumerate(features):
            if feature is None:
                continue
            for i, (ids, types) in enumerate(_texts(feature)):
                at = (row, i, slice(len(ids))) if len(shape) == 3 else (row, slice(len(ids)))
                batch["input_ids"][at], batch["token_type_ids"][at], batch["attention_mask"][at] = ids, types, 1
            if feature.label is not None:
                if self._kind == "token_classification":
                    labels[row, : len(feature.label)] = feature.label
                else:
                    labels[row] = feature.label
        return batch

    def _no_labels(self, rows: int, length: int) -> np.ndarray:
        shape = {"token_classification": (rows, length), "question_answering": (rows, 2)}.get(self._kind, (rows,))
        return np.full(shape, np.nan, np.float32) if self._floating else np.full(shape, NO_LABEL, np.int32)


def _texts(feature: Feature) -> list[tuple[list[int], list[int]]]:
    """The ids and token types of a feature's text, or of each choice."""
    if isinstance(feature.input_ids[0], list):
        return list(zip(feature.input_ids, feature.token_type_ids, strict=True))
    return [(feature.input_ids, feature.token_type_ids)]


def _length(feature: Feature) -> int:
    return max(len(ids) for ids, _ in _texts(feature))


def best_lengths(longest: np.ndarray, most: int) -> list[int]:
    """At most so many lengths to pad batches to, whose longest texts are given, with the least padding altogether."""
    values, counts = np.unique(longest, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    # cost[j] of padding the batches up to value j, with the lengths so far; then with one more length, from i on.
    cost = values * before[1:]
    choices = []
    for _ in range(min(most, len(values)) - 1):
        further = np.concatenate([[0], cost[:-1]]) - values[:, None] * before[:-1]
        further = np.where(np.tri(len(values), dtype=bool), further, np.inf) + (values * before[1:])[:, None]
        choices.append(further.argmin(1))
        cost = further.min(1)
    found, end = [], len(values) - 1
    for choice in reversed(choices):
        found.append(int(values[end]))
        end = choice[end] - 1
        if end < 0:
            return found[::-1]
    return [*([int(values[end])]), *found[::-1]]
