"""Examples to batches of numpy arrays: a pure function of (examples, config, step), so any start is O(1)."""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bert_jax.config import InputError, Phase, PretrainConfig
from bert_jax.data.examples import HEADER
from bert_jax.data.masking import Masker
from bert_jax.data.records import ExampleReader, Examples

# The GPUs are JAX's.
tf.config.set_visible_devices([], "GPU")

Batch = dict[str, np.ndarray]

# Four rounds, what tf.random.experimental.index_shuffle does, leave the permutations of two epochs correlated at 0.95.
SHUFFLE_ROUNDS = 16
# Keeps the draws of evaluation apart from those of training.
HELD_OUT_STREAM = 1 << 40
NO_LABEL = -100
# Batches made at the same time, and made ahead of the one that is asked for.
PARALLEL = min(8, os.cpu_count())
PREFETCHED = 4


def batches(
    examples: Examples, config: PretrainConfig, step: int = 0, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """The training batches from `step` (0 is the first) to the end of the last phase.

    Each is this process's rows of the global batch, B / process_count of them, as int32 [B, S]: `input_ids`,
    `token_type_ids`, `attention_mask`; [B, K]: `masked_lm_positions`, `masked_lm_ids`, `masked_lm_weights` (float32);
    [B]: `next_sentence_labels`. Every epoch is another permutation of all examples; batches run across its end.
    """
    first = 0
    for phase in config.phases:
        if step < first + phase.steps:
            rows = _rows(phase.batch_size, process_index, process_count)
            reader = examples.split("train", phase.sequence_length)
            masker = Masker.of(config.masking, phase.max_predictions, examples.tokenizer)
            make = _train_batch(reader, masker, config.seed, phase.batch_size, first, rows)
            yield from _run(tf.data.Dataset.range(max(step, first), first + phase.steps), make)
        first += phase.steps


def held_out_batches(
    examples: Examples, config: PretrainConfig, phase: Phase, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """The held-out examples once, in order and with the same masks each time; the last batch is filled with empty rows.

    An empty row has weights 0, attention mask 0 and next-sentence label -100.
    """
    rows = _rows(phase.batch_size, process_index, process_count)
    reader = examples.split("held_out", phase.sequence_length)
    masker = Masker.of(config.masking, phase.max_predictions, examples.tokenizer, held_out=True)
    make = _held_out_batch(reader, masker, config.seed, phase.batch_size, rows)
    count = -(-len(reader) // phase.batch_size)
    return _run(tf.data.Dataset.range(min(count, config.run.evaluation_batches or count)), make)


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size % process_count:
        raise InputError(f"batch size {batch_size} isn't divisible by the {process_count} processes")
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)


def _run(dataset: tf.data.Dataset, make) -> Iterator[Batch]:
    # Fixed numbers: the tuner gains little here, and its thread held up the end of a long run for half a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    dataset = dataset.map(make, num_parallel_calls=PARALLEL).prefetch(PREFETCHED)
    return dataset.with_options(options).as_numpy_iterator()


def _train_batch(reader: ExampleReader, masker: Masker, seed: int, batch_size: int, first: int, rows: range):
    """Makes the batch of a step, in a phase that began with the step `first`."""
    count = len(reader)

    def make(step):
        # [B] places in the endless row of epochs, each its own permutation. A phase starts with epoch 0 of its own.
        place = (step - first) * batch_size + tf.range(rows.start, rows.stop, dtype=tf.int64)
        epoch = place // count
        seeds = tf.stack([tf.fill(epoch.shape, np.int64(seed)), epoch, tf.fill(epoch.shape, np.int64(first))], 1)
        indices = tf.raw_ops.RandomIndexShuffle(
            index=place % count, seed=seeds, max_index=np.int64(count - 1), rounds=SHUFFLE_ROUNDS
        )
        return _masked(_read(reader, indices), masker, seed, step, rows)

    return make


def _held_out_batch(reader: ExampleReader, masker: Masker, seed: int, batch_size: int, rows: range):
    """Makes the held-out batch of a number."""

    def make(number):
        indices = number * batch_size + tf.range(rows.start, rows.stop, dtype=tf.int64)
        real = indices < len(reader)
        batch = _masked(_read(reader, tf.where(real, indices, 0)), masker, seed, HELD_OUT_STREAM + number, rows)
        for field in ("masked_lm_weights", "attention_mask"):
            batch[field] *= tf.cast(real, batch[field].dtype)[:, None]
        batch["next_sentence_labels"] = tf.where(real, batch["next_sentence_labels"], NO_LABEL)
        return batch

    return make


def _read(reader: ExampleReader, indices) -> tf.Tensor:
    records = tf.numpy_function(reader.read, [indices], tf.int32)
    return tf.ensure_shape(records, [indices.shape[0], HEADER + reader.length])


def _masked(records, masker: Masker, seed: int, step, rows: range) -> dict[str, tf.Tensor]:
    """[B, HEADER + S] records -> a batch."""
    labels, second, lengths = records[:, 0], records[:, 1], records[:, 2]
    input_ids = records[:, HEADER:]
    place = tf.range(input_ids.shape[1])
    masked_ids, positions, ids, weights = masker(input_ids, lengths, seed, step, rows.start)
    in_text = place < lengths[:, None]
    return {
        "input_ids": masked_ids,
        "token_type_ids": tf.cast(in_text & (place >= second[:, None]), tf.int32),
        "attention_mask": tf.cast(in_text, tf.int32),
        "masked_lm_positions": positions,
        "masked_lm_ids": ids,
        "masked_lm_weights": weights,
        "next_sentence_labels": labels,
    }
