"""Makes batches of NumPy arrays of examples: a pure function of (examples, config, step), so any start is O(1)."""

import atexit
import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from bert_jax.config import Phase, PretrainConfig
from bert_jax.data.examples import HEADER, continues_bit
from bert_jax.data.masking import ExampleDraws, Masker, RowDraws
from bert_jax.data.records import ExampleReader, Examples
from bert_jax.data.tensorflow import tf
from bert_jax.data.tokenizers import CLS
from bert_jax.data.workers import granted_cores

# TensorFlow must leave the GPUs to JAX.
tf.config.set_visible_devices([], "GPU")

Batch = dict[str, np.ndarray]

# With four rounds, as in tf.random.experimental.index_shuffle, permutations of two epochs have a correlation of 0.95.
SHUFFLE_ROUNDS = 16
# Added to the number of a held-out batch, so that evaluation and training have different draws.
HELD_OUT_STREAM = 1 << 40
NO_LABEL = -100
# Number of batches that are made at the same time, and that are made ahead.
PARALLEL = min(8, granted_cores())
PREFETCHED = 4


# From the size of a global batch to the rows that this process makes, as ascending ranges.
Rows = Callable[[int], Sequence[range]]


def all_rows(batch_size: int) -> Sequence[range]:
    return (range(batch_size),)


def batches(examples: Examples, config: PretrainConfig, step: int = 0, rows: Rows = all_rows) -> Iterator[Batch]:
    """The training batches from `step` (0 is the first) to the end of the last phase.

    Each has the `rows` of the global batch, B of them, as int32 [B, S]: `input_ids`, `token_type_ids`,
    `attention_mask`; [B, K]: `masked_lm_positions`, `masked_lm_ids`, `masked_lm_weights` (float32); [B]:
    `next_sentence_labels`; packed examples also [B, S]: `sequence_ids` (1, 2, ... for the texts of a row, 0 for
    padding) and `position_ids` (from 0 in each text). Every epoch is a new permutation of all examples; a batch may
    span the end of an epoch.
    """
    first = 0
    for phase in config.phases:
        if step < first + phase.steps:
            maker = Maker.from_config(examples, config, phase, "train", rows)
            make = functools.partial(maker.train, first=first)
            yield from run(tf.data.Dataset.range(max(step, first), first + phase.steps), make)
        first += phase.steps


def held_out_batches(
    examples: Examples, config: PretrainConfig, phase: Phase, rows: Rows = all_rows, split: str = "held_out"
) -> Iterator[Batch]:
    """Batches of all held-out examples, in order and always with the same masks; empty rows fill the last batch.

    An empty row has weights 0, attention mask 0 and next-sentence label -100.
    """
    maker = Maker.from_config(examples, config, phase, split, rows, evaluation=True)
    count = -(-len(maker.reader) // phase.batch_size)
    return run(tf.data.Dataset.range(min(count, config.run.evaluation_batches or count)), maker.held_out)


class _Batches:
    """Iterates over a dataset's elements as NumPy arrays.

    Iterators still in use are dropped before Python ends: their threads need Python's lock, which they can't get during
    the shutdown, where TensorFlow would wait for them for ever.
    """

    _in_use: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    def __init__(self, dataset: tf.data.Dataset):
        self._elements = dataset.as_numpy_iterator()
        self._in_use.add(self)

    def __iter__(self) -> "_Batches":
        return self

    def __next__(self) -> Batch:
        return next(self._elements)

    @classmethod
    def drop_all(cls) -> None:
        for batches in list(cls._in_use):
            batches._elements = iter(())


atexit.register(_Batches.drop_all)


def run(dataset: tf.data.Dataset, make) -> Iterator[Batch]:
    """`make` of each element, in order; several are made at the same time and ahead."""
    # Fixed numbers: autotuning gains little here, and its thread delayed the end of a long run by half a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    # Nothing in `make` depends on the value of a tensor, so its source needn't be translated, which takes seconds.
    make = tf.autograph.experimental.do_not_convert(make)
    dataset = dataset.map(make, num_parallel_calls=PARALLEL).prefetch(PREFETCHED)
    return _Batches(dataset.with_options(options))


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes the batches of a phase and a split; each with the rows in `runs` only."""

    reader: ExampleReader
    masker: Masker
    seed: int
    batch_size: int
    runs: Sequence[range]
    static: bool = False
    continues_bit: int = 0
    """The bit set in an id that continues a word; 0 where the records don't mark words."""
    text_start: int | None = None
    """The id that each text of a packed row starts with; None where a row is one text."""

    @classmethod
    def from_config(
        cls,
        examples: Examples,
        config: PretrainConfig,
        phase: Phase,
        split: str,
        rows: Rows = all_rows,
        evaluation: bool = False,
    ):
        return cls(
            reader=examples.split(split, phase.sequence_length),
            masker=Masker.from_config(config.masking, phase.max_predictions, examples.tokenizer, evaluation),
            seed=config.seed,
            batch_size=phase.batch_size,
            runs=rows(phase.batch_size),
            static=config.masking.static,
            continues_bit=continues_bit(examples.dtype) if config.examples.word_segmenter else 0,
            text_start=examples.tokenizer.special_ids[CLS] if config.examples.format == "packed" else None,
        )

    @property
    def rows(self) -> np.ndarray:
        """[B] the rows' numbers in the global batch."""
        return np.concatenate([np.arange(run.start, run.stop) for run in self.runs])

    def train(self, step, first: int) -> dict[str, tf.Tensor]:
        """The batch of a step, in a phase whose first step is `first`."""
        return self._batch(self.shuffled(step, first), step)

    def shuffled(self, step, first: int) -> tf.Tensor:
        """[B] the indices of that batch's examples. Every epoch is a new permutation; a phase starts with epoch 0."""
        count = len(self.reader)
        # [B] numbers in the endless sequence of all epochs' examples.
        number = (step - first) * self.batch_size + self.rows
        epoch = number // count
        seeds = tf.stack([tf.fill(epoch.shape, np.int64(self.seed)), epoch, tf.fill(epoch.shape, np.int64(first))], 1)
        return tf.raw_ops.RandomIndexShuffle(
            index=number % count, seed=seeds, max_index=np.int64(count - 1), rounds=SHUFFLE_ROUNDS
        )

    def held_out(self, number) -> dict[str, tf.Tensor]:
        """The held-out batch with a number."""
        indices = number * self.batch_size + self.rows
        real = indices < len(self.reader)
        batch = self._batch(tf.where(real, indices, 0), HELD_OUT_STREAM + number)
        for field in ("masked_lm_weights", "attention_mask"):
            batch[field] *= tf.cast(real, batch[field].dtype)[:, None]
        batch["next_sentence_labels"] = tf.where(real, batch["next_sentence_labels"], NO_LABEL)
        return batch

    def _batch(self, indices, step) -> dict[str, tf.Tensor]:
        records = tf.numpy_function(self.reader.read, [indices], tf.int32)
        records = tf.ensure_shape(records, [len(self.rows), HEADER + self.reader.length])
        return self.masked(records, indices, step)

    def masked(self, records, indices, step) -> dict[str, tf.Tensor]:
        """The batch of [B, HEADER + S] `records`, which are the examples [B] `indices`, with the step's draws."""
        labels, second, lengths = records[:, 0], records[:, 1], records[:, 2]
        input_ids = records[:, HEADER:]
        continues = None
        if self.continues_bit:
            continues = input_ids >= self.continues_bit
            input_ids = tf.bitwise.bitwise_and(input_ids, self.continues_bit - 1)
        draws: ExampleDraws | RowDraws
        if self.static:
            draws = ExampleDraws(self.seed, indices)
        else:
            draws = RowDraws(self.seed, step, self.runs)
        masked_ids, positions, ids, weights = self.masker(input_ids, lengths, draws, continues)
        position = tf.range(self.reader.length)
        in_text = position < lengths[:, None]
        texts = {} if self.text_start is None else _texts(input_ids == self.text_start, in_text)
        return {
            "input_ids": masked_ids,
            "token_type_ids": tf.cast(in_text & (position >= second[:, None]), tf.int32),
            "attention_mask": tf.cast(in_text, tf.int32),
            "masked_lm_positions": positions,
            "masked_lm_ids": ids,
            "masked_lm_weights": weights,
            "next_sentence_labels": labels,
            **texts,
        }


def _texts(starts, in_text) -> dict[str, tf.Tensor]:
    """[B, S] bool, where a text starts and where a text is -> each token's text, and its position in it."""
    number = tf.cumsum(tf.cast(starts, tf.int32), axis=1)  # From 1 in each row.
    # Every row starts with a text, so that the texts can be numbered through the whole batch.
    before = tf.cumsum(number[:, -1:], exclusive=True) - 1
    began = tf.gather(tf.cast(tf.where(starts)[:, 1], tf.int32), before + number)
    inside = tf.cast(in_text, tf.int32)
    return {"sequence_ids": number * inside, "position_ids": (tf.range(starts.shape[1]) - began) * inside}
