"""Masked-LM targets for a whole batch at once (BERT paper, section 3.1, task 1).

In TensorFlow, which leaves Python's lock to the training loop while it works.

Everything random is drawn by counter: a row's draws depend only on the seed and either (step, row number in the global
batch) or its example. Each process computes only its own rows, and any number of processes makes the same batch.
Shapes in comments: B rows, S sequence length, K most predictions, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from bert_jax.config import MaskingConfig
from bert_jax.data import words
from bert_jax.data.tensorflow import tf
from bert_jax.data.tokenizers import MASK, Tokenizer

PHILOX = 1
# Shares of the chosen tokens that become [MASK] and a random token; the rest stays unchanged.
MASKED, RANDOM = 0.8, 0.1
NO_KEY = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Masker:
    """Chooses and hides the tokens to predict, never `special_ids`; random replacements come from `replacements`."""

    rate: float
    max_predictions: int
    whole_word: bool
    mask_id: int
    special_ids: tuple[int, ...]
    replacements: np.ndarray
    continues_word: np.ndarray

    @classmethod
    def from_config(
        cls, config: MaskingConfig, max_predictions: int, tokenizer: Tokenizer, held_out: bool = False
    ) -> "Masker":
        special_ids = tuple(tokenizer.special_ids.values())
        pool = np.ones(tokenizer.vocab_size, bool)
        if config.random_tokens == "ordinary":
            pool[list(special_ids)] = False
        return cls(
            rate=config.evaluation_rate if held_out else config.rate,
            max_predictions=max_predictions,
            whole_word=config.whole_word,
            mask_id=tokenizer.special_ids[MASK],
            special_ids=special_ids,
            replacements=np.flatnonzero(pool).astype(np.int32),
            continues_word=words.continues_word(tokenizer),
        )

    def __call__(self, input_ids, lengths, draws, continues=None):
        """[B, S] ids and [B] lengths (special tokens included) -> masked ids, positions, ids and weights [B, K].

        `draws` are the rows' `RowDraws` or `ExampleDraws`; `continues` [B, S] bool says which tokens continue the word
        of the token before (None: their pieces say it). Positions are ascending; unused ones are 0, with weight 0.
        """
        length = input_ids.shape[1]
        candidates = functools.reduce(tf.logical_and, (input_ids != i for i in self.special_ids))
        # In double precision, and halves to the even number, like Python's round() in the original.
        wanted = tf.cast(tf.round(self.rate * tf.cast(lengths, tf.float64)), tf.int32)
        wanted = tf.minimum(self.max_predictions, tf.maximum(1, wanted))
        scores = draws(length)
        if self.whole_word:
            continues = tf.gather(self.continues_word, input_ids) if continues is None else continues
            chosen = _whole_words(candidates, continues, scores, wanted)
            positions = _sorted(tf.where(chosen, tf.range(length), length))[:, : self.max_predictions]
        else:
            positions = _in_numpy(self._lowest, _keys(candidates, scores), wanted)
            positions = tf.ensure_shape(positions, [input_ids.shape[0], self.max_predictions])
        used = positions < length
        positions = tf.where(used, positions, 0)
        ids = tf.gather(input_ids, positions, batch_dims=1)
        masked = self._hide(input_ids, positions, ids, used, draws)
        return masked, positions, tf.where(used, ids, 0), tf.cast(used, tf.float32)

    def _lowest(self, keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """[B, K] the positions of the `wanted` lowest keys, ascending, then S."""
        length, bits = keys.shape[1], (keys.shape[1] - 1).bit_length()
        keys = np.sort(keys)[:, : self.max_predictions]
        unused = (keys == NO_KEY) | (np.arange(self.max_predictions) >= wanted[:, None])
        keys &= np.int32((1 << bits) - 1)
        keys[unused] = length
        keys.sort()
        return keys

    def _hide(self, input_ids, positions, ids, used, draws):
        """Replaces the ids at the used positions: 80 % [MASK], 10 % random, 10 % unchanged."""
        kind, pick = tf.split(draws(2 * self.max_predictions), 2, axis=1)
        random_ids = tf.gather(self.replacements, tf.cast(pick * len(self.replacements), tf.int32))
        new = tf.where(kind < MASKED, self.mask_id, tf.where(kind < MASKED + RANDOM, random_ids, ids))
        # Unused positions add nothing; used ones are unique in their row. (A segment sum is the fastest scatter.)
        batch, length = input_ids.shape
        indices = tf.range(batch)[:, None] * length + positions
        change = tf.math.unsorted_segment_sum(tf.where(used, new - ids, 0), indices, batch * length)
        return input_ids + tf.reshape(change, input_ids.shape)


def _keys(eligible, scores):
    """[B, S] the score in the upper bits and the position in the lower bits: sorting scores thus sorts positions."""
    length = eligible.shape[1]
    bits = (length - 1).bit_length()
    keys = tf.cast(scores * 2.0 ** (31 - bits), tf.int32) * (1 << bits) + tf.range(length)
    return tf.where(eligible, keys, NO_KEY)


def _random_order(eligible, scores):
    """[B, S] the eligible positions, in the order of their scores in [0, 1), then -1."""
    keys = _sorted(_keys(eligible, scores))
    bits = (eligible.shape[1] - 1).bit_length()
    return tf.where(keys < NO_KEY, tf.bitwise.bitwise_and(keys, (1 << bits) - 1), -1)


def _sorted(rows):
    """[B, S] int32, each row in ascending order. NumPy sorts with vector instructions, ten times faster than TF."""
    return tf.ensure_shape(_in_numpy(np.sort, rows), rows.shape)


def _in_numpy(function, *arguments):
    return tf.numpy_function(function, arguments, tf.int32)


def _whole_words(candidates, continues, scores, wanted):
    """[B, S] bool, the chosen tokens: whole words in random order, each taken if it still fits, as in the original."""
    batch, length = candidates.shape
    row = tf.range(batch)[:, None] * length
    # A word starts at a candidate that doesn't continue a word, or that follows a token that isn't a candidate.
    follows = tf.pad(candidates[:, :-1], [[0, 0], [1, 0]])
    starts = candidates & ~(continues & follows)
    # [B, S] the number of each token's word in the batch: a row has S numbers.
    word = tf.where(candidates, tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1 + row, -1)
    sizes = tf.math.unsorted_segment_sum(tf.ones_like(word), word, batch * length)
    order = _random_order(tf.reshape(sizes, [batch, length]) > 0, scores)
    order = tf.where(order >= 0, order + row, -1)  # [B, words] numbers in the batch.
    taken = _taken(tf.where(order >= 0, tf.gather(sizes, tf.maximum(order, 0)), 0), wanted)
    taken = tf.math.unsorted_segment_sum(tf.cast(taken, tf.int32), order, batch * length) > 0
    return candidates & tf.gather(taken, tf.maximum(word, 0))


def _taken(sizes, room):
    """[B, words] bool, the words that are taken: in a row's order, each word that fits in what is left of `room`.

    A running sum finds all words before the first that doesn't fit. Words larger than the room left then can't fit
    later either, since the room only shrinks, and are dropped; this repeats, a few times, until all that remain fit.
    """

    room = room[:, None]

    def some_do_not_fit(left, running):
        return tf.reduce_any(left & (running > room))

    def without_too_large(left, running):
        rest = room - tf.reduce_max(tf.where(running <= room, running, 0), axis=1, keepdims=True)
        left &= (running <= room) | (sizes <= rest)
        return left, tf.cumsum(tf.where(left, sizes, 0), axis=1)

    return tf.while_loop(some_do_not_fit, without_too_large, (sizes > 0, tf.cumsum(sizes, axis=1)))[0]


class RowDraws:
    """Uniform draws in [0, 1) for rows of a step's global batch; `runs` are ranges of row numbers.

    Each call returns the draws of a new random stream, [rows, width].
    """

    def __init__(self, seed, step, runs: Sequence[range]):
        self._key = tf.cast(seed, tf.uint64)[None]
        self._step = tf.cast(step, tf.uint64)
        self._runs = runs
        self._stream = 0

    def __call__(self, width: int):
        # Philox makes four numbers for each value of its counter, so a row starts at a multiple of four. The counter's
        # upper half holds the step and the stream, so that no two draws of a training run share a value.
        padded = -(-width // 4) * 4
        upper = self._step * 4 + self._stream
        self._stream += 1

        def draw(run: range):
            counter = tf.stack([np.uint64(run.start * (padded // 4)), upper])
            return tf.raw_ops.StatelessRandomUniformV2(
                shape=[len(run), padded], key=self._key, counter=counter, alg=PHILOX, dtype=tf.float32
            )

        return tf.concat([draw(run) for run in self._runs], 0)[:, :width]


class ExampleDraws:
    """Uniform draws in [0, 1) for the examples [B] `indices`: an example has the same draws in every step.

    A row is a stream of SplitMix64 (Steele, Lea and Flood, 2014), since TensorFlow's generators take one key for all
    rows.
    """

    def __init__(self, seed, indices):
        self._rows = _mixed(_mixed(tf.cast(seed, tf.uint64)) + tf.cast(indices, tf.uint64))
        self._drawn = 0

    def __call__(self, width: int):
        counter = tf.range(self._drawn + 1, self._drawn + width + 1, dtype=tf.int64)
        self._drawn += width
        bits = _mixed(self._rows[:, None] + tf.cast(counter, tf.uint64) * _GOLDEN)
        return tf.cast(_shifted(bits, 40), tf.float32) * 2.0**-24


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x):
    """SplitMix64's output function: each bit of the uint64 `x` changes about half of the result's bits."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shifted(x, shift)) * np.uint64(factor)
    return x ^ _shifted(x, 31)


def _shifted(x, bits: int):
    return tf.bitwise.right_shift(x, np.uint64(bits))
