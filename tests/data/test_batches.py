"""The pipeline: position as data; masks by statistics, exact repetition, and any number of processes."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bert_jax.config import ExamplesConfig, MaskingConfig, Phase
from bert_jax.data import masking, pipeline, tokenizers
from bert_jax.data.masking import ExampleDraws, Masker, RowDraws
from bert_jax.data.prepare import prepare

VOCABULARY = [*tokenizers.SPECIAL, *(f"w{i}" for i in range(60)), *(f"##p{i}" for i in range(35))]
LENGTH, ROWS = 128, 1500


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def with_phases(config, *phases):
    return dataclasses.replace(config, phases=phases)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_started_anywhere_the_batches_are_the_same(examples, config, processes):
    whole = list(itertools.islice(pipeline.batches(examples, config), 12))
    for start in (0, 5, 11):
        parts = [pipeline.batches(examples, config, start, share(p, processes)) for p in range(processes)]
        for expected in whole[start:]:
            rows = [next(part) for part in parts]
            assert equal({name: np.concatenate([r[name] for r in rows]) for name in expected}, expected)


def share(process: int, processes: int):
    """The rows of one of several processes."""
    return lambda size: (range(size * process // processes, size * (process + 1) // processes),)


def test_rows_that_are_not_next_to_each_other(examples, config):
    whole = next(pipeline.batches(examples, config, 3))
    some = next(pipeline.batches(examples, config, 3, lambda size: (range(1, 2), range(4, 7))))
    assert equal(some, {name: values[[1, 4, 5, 6]] for name, values in whole.items()})


def test_phases_follow_each_other(examples, config, tmp_path):
    phases = (Phase(32, 8, 3, 5), Phase(16, 4, 2, 2))
    config = with_phases(config, *phases)
    examples = prepare(config, tmp_path / "two")
    shapes = [batch["input_ids"].shape for batch in pipeline.batches(examples, config)]
    assert shapes == [(8, 32)] * 3 + [(4, 16)] * 2
    assert equal(list(pipeline.batches(examples, config, 4))[0], list(pipeline.batches(examples, config))[4])


class Numbered:
    """Records that hold their own index, to see the order in which they come."""

    length = 8

    def __init__(self, count):
        self._count = count

    def __len__(self):
        return self._count

    def read(self, indices):
        rows = np.zeros((len(indices), 3 + self.length), np.int32)
        rows[:, 0] = indices
        return rows


def order(examples, config, count: int, epochs: int, seed: int = 0) -> np.ndarray:
    """[epochs, count] the order in which each epoch visits the examples."""
    masker = Masker.from_config(config.masking, 1, examples.tokenizer)
    make = pipeline.Maker(Numbered(count), masker, seed, 7, (range(7),)).train
    batches = tf.data.Dataset.range(-(-epochs * count // 7)).map(lambda step: make(step, 0)).as_numpy_iterator()
    flat = np.concatenate([batch["next_sentence_labels"] for batch in batches])
    return flat[: epochs * count].reshape(epochs, count)


def test_epochs_are_different_permutations(examples, config):
    count = 1000
    epochs = order(examples, config, count, 12)
    assert (np.sort(epochs) == np.arange(count)).all()
    correlations = np.corrcoef(np.vstack([epochs, np.arange(count)])) - np.eye(13)
    assert np.abs(correlations).max() < 5 / np.sqrt(count)
    assert not np.array_equal(epochs, order(examples, config, count, 12, seed=1))


def test_held_out_split_is_visited_once_and_padded_with_nothing(examples, config):
    reader = examples.split("held_out", 32)
    batches = list(pipeline.held_out_batches(examples, config, config.phases[0]))
    again = list(pipeline.held_out_batches(examples, config, config.phases[0]))
    assert all(map(equal, batches, again))
    labels = np.concatenate([batch["next_sentence_labels"] for batch in batches])
    assert np.array_equal(labels[: len(reader)], reader.read(np.arange(len(reader)))[:, 0])
    assert (labels[len(reader) :] == pipeline.NO_LABEL).all()
    weights = np.concatenate([batch["masked_lm_weights"] for batch in batches]).sum(1)
    assert (weights[: len(reader)] > 0).all() and not weights[len(reader) :].any()


def unmasked(batch) -> np.ndarray:
    restored = batch["input_ids"].copy()
    rows, columns = np.nonzero(batch["masked_lm_weights"])
    restored[rows, batch["masked_lm_positions"][rows, columns]] = batch["masked_lm_ids"][rows, columns]
    return restored


def test_a_batch_is_the_example_but_for_the_masks(examples, config):
    batch = next(pipeline.batches(examples, config))
    restored = unmasked(batch)
    reader = examples.split("train", 32)
    records = {tuple(r[3:]): r for r in reader.read(np.arange(len(reader)))}
    for i, row in enumerate(restored):
        label, second, length = records[tuple(row)][:3]
        assert batch["next_sentence_labels"][i] == label
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * (32 - length)
        expected = [0] * second + [1] * (length - second) + [0] * (32 - length)
        assert batch["token_type_ids"][i].tolist() == expected


def test_python_ends_with_batches_under_way(examples, config):
    """An error that nobody catches leaves them so; the process must not hang."""
    code = f"""
from bert_jax.config import *
from bert_jax.data import pipeline
from bert_jax.data.records import Examples
batches = pipeline.batches(Examples({str(examples.folder)!r}), {config!r})
next(batches)
raise SystemError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "SystemError" in done.stderr


# ---- Masks ---------------------------------------------------------------------------------------------------------


def masked(seed=0, step=0, first_row=0, rows=ROWS, max_predictions=30, static=False, **changes):
    """Random rows of words and their continuations, padded, with what the masker makes of them."""
    tokenizer = tokenizers.WordPiece(VOCABULARY, True)
    rng = np.random.default_rng(3)
    lengths = rng.integers(20, LENGTH + 1, ROWS).astype(np.int32)
    ids = rng.integers(5, len(VOCABULARY), (ROWS, LENGTH)).astype(np.int32)
    ids[rng.random(ids.shape) < 0.02] = tokenizer.special_ids["[UNK]"]
    ids[:, 0] = tokenizer.special_ids["[CLS]"]
    ids[np.arange(ROWS), lengths - 1] = tokenizer.special_ids["[SEP]"]
    ids[:, 9] = tokenizer.special_ids["[SEP]"]
    ids[np.arange(LENGTH) >= lengths[:, None]] = tokenizer.special_ids["[PAD]"]
    masker = Masker.from_config(MaskingConfig(**changes), max_predictions, tokenizer)
    take = slice(first_row, first_row + rows)
    numbers = range(ROWS)[take]
    draws = ExampleDraws(seed, numbers) if static else RowDraws(seed, step, (numbers,))
    out = masker(tf.constant(ids[take]), tf.constant(lengths[take]), draws)
    return tokenizer, ids[take], lengths[take], *(x.numpy() for x in out)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("whole_word", [False, True])
def test_masked_tokens_are_ordinary_unique_and_as_many_as_asked(whole_word, static):
    tokenizer, ids, lengths, new, positions, targets, weights = masked(whole_word=whole_word, static=static)
    assert lengths.sum() > 1e5
    wanted = np.minimum(30, np.maximum(1, np.round(0.15 * lengths))).astype(int)
    counts = weights.sum(1).astype(int)
    assert (counts <= wanted).all() if whole_word else (counts == wanted).all()
    assert (counts > 0.8 * wanted).mean() > 0.95
    special = list(tokenizer.special_ids.values())
    for row in range(ROWS):
        chosen = positions[row, : counts[row]]
        assert len(set(chosen)) == counts[row] and (np.diff(chosen) > 0).all()
        assert not np.isin(ids[row, chosen], special).any()
        assert np.array_equal(targets[row, : counts[row]], ids[row, chosen])
        untouched = np.setdiff1d(np.arange(LENGTH), chosen)
        assert np.array_equal(new[row, untouched], ids[row, untouched])
        assert not weights[row, counts[row] :].any()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("random_tokens", ["ordinary", "all"])
def test_shares_of_mask_random_and_kept(random_tokens, static):
    tokenizer, ids, _, new, positions, _, weights = masked(random_tokens=random_tokens, static=static)
    rows, columns = np.nonzero(weights)
    old, new = ids[rows, positions[rows, columns]], new[rows, positions[rows, columns]]
    n = len(old)
    mask = tokenizer.special_ids["[MASK]"]
    assert abs((new == mask).mean() - 0.8) < 4 * np.sqrt(0.16 / n) + (random_tokens == "all") * 0.001
    assert abs((new == old).mean() - 0.1) < 4 * np.sqrt(0.09 / n) + 0.1 / 95
    replaced = new[(new != mask) & (new != old)]
    specials = np.isin(replaced, list(tokenizer.special_ids.values()))
    assert specials.any() == (random_tokens == "all")
    # Random tokens are spread evenly over the vocabulary.
    counts = np.bincount(replaced[~specials], minlength=len(VOCABULARY))[5:]
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


@pytest.mark.parametrize("static", [False, True])
def test_every_ordinary_place_is_as_likely(static):
    _, _, lengths, _, positions, _, weights = masked(static=static)
    full = lengths > 100
    hits = np.bincount(positions[full][weights[full] > 0], minlength=LENGTH)
    assert hits[0] == hits[9] == 0
    hits = np.delete(hits[:100], [0, 9])
    assert np.abs(hits - hits.mean()).max() < 5 * np.sqrt(hits.mean())


def test_masks_repeat_for_one_seed_and_step_only():
    first = masked(seed=1, step=7)
    assert all(np.array_equal(a, b) for a, b in zip(first[3:], masked(seed=1, step=7)[3:], strict=True))
    for other in (masked(seed=2, step=7), masked(seed=1, step=8)):
        assert (first[4] != other[4]).any(1).mean() > 0.99


@pytest.mark.parametrize("static", [False, True])
def test_masks_of_some_rows_are_those_rows_of_the_whole(static):
    whole, part = masked(static=static), masked(first_row=300, rows=10, static=static)
    assert all(np.array_equal(a[300:310], b) for a, b in zip(whole[3:], part[3:], strict=True))


def test_whole_words_are_masked_whole():
    tokenizer, ids, lengths, _, positions, _, weights = masked(whole_word=True)
    continues = tokenizer.continues_word()
    special = list(tokenizer.special_ids.values())
    cut = 0
    for row in range(ROWS):
        chosen = set(positions[row, weights[row] > 0])
        for p in range(1, lengths[row] - 1):
            joined = continues[ids[row, p]] and not np.isin(ids[row, [p, p - 1]], special).any()
            cut += joined and ((p in chosen) != (p - 1 in chosen))
    assert cut == 0


def test_whole_word_masking_takes_each_word_that_fits():
    """A row of one word of nine pieces and single pieces: three are wanted, so the long word never is."""
    tokenizer = tokenizers.WordPiece(VOCABULARY, True)
    row = [2, 10, *([70] * 8), *range(20, 29), 3]
    masker = Masker.from_config(MaskingConfig(whole_word=True), 20, tokenizer)
    ids = tf.constant([row] * 200, tf.int32)
    _, positions, _, weights = masker(ids, tf.fill([200], len(row)), RowDraws(0, 0, (range(200),)))
    assert (weights.numpy().sum(1) == 3).all()
    assert positions.numpy()[weights.numpy() > 0].min() == 10


def test_words_are_taken_as_one_after_the_other_would():
    rng = np.random.default_rng(0)
    sizes = rng.choice([0, 1, 2, 3, 7], (300, 40), p=[0.3, 0.3, 0.2, 0.15, 0.05]).astype(np.int32)
    room = rng.integers(0, 30, 300).astype(np.int32)
    taken = masking._taken(tf.constant(sizes), tf.constant(room)).numpy()
    for row, left in enumerate(room):
        for size, is_taken in zip(sizes[row], taken[row], strict=True):
            assert is_taken == (0 < size <= left)
            left -= size * is_taken


def test_stream_of_an_example_is_splitmix64():
    """The first numbers that Vigna's C code gives for the seed 1234567."""
    numbers = masking._mixed(tf.constant(1234567, tf.uint64) + tf.constant([1, 2, 3], tf.uint64) * masking._GOLDEN)
    assert numbers.numpy().tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_static_masks_are_the_examples_own(config, examples):
    """Two epochs, any start and any number of processes; and another mask for a copy of the same example."""
    config = dataclasses.replace(config, masking=MaskingConfig(static=True))
    count = len(examples.split("train", 32))
    config = with_phases(config, Phase(32, 8, -(-2 * count // 8), 5))
    test_started_anywhere_the_batches_are_the_same(examples, config, 2)
    seen: dict[tuple, list] = {}
    for batch in pipeline.batches(examples, config):
        for row, masked_row in zip(unmasked(batch), batch["input_ids"], strict=True):
            seen.setdefault(tuple(row), []).append(tuple(masked_row))
    assert len(seen) > 0.9 * count
    assert all(len(set(masks)) <= max(1, len(masks) // 2) for masks in seen.values())
    dynamic = dataclasses.replace(config, masking=MaskingConfig())
    assert not equal(next(pipeline.batches(examples, config)), next(pipeline.batches(examples, dynamic)))


def test_copies_of_the_documents(config, tmp_path):
    config = dataclasses.replace(config, examples=ExamplesConfig(dupe_factor=3))
    examples = prepare(config, tmp_path / "examples")
    reader = examples.split("train", 32)
    rows = {tuple(record[3:]) for record in reader.read(np.arange(len(reader)))}
    assert len(rows) > 0.8 * len(reader)
    once = prepare(dataclasses.replace(config, examples=ExamplesConfig()), tmp_path / "once")
    assert 2.8 < len(reader) / len(once.split("train", 32)) < 3.2
    assert len(examples.split("held_out", 32)) == len(once.split("held_out", 32))


def of_format(config, form: str, folder, **changes):
    config = dataclasses.replace(config, examples=ExamplesConfig(form), **changes)
    return prepare(config, folder), config


def test_full_sentences_are_one_segment(config, tmp_path):
    batch = next(pipeline.batches(*of_format(config, "full_sentences", tmp_path / "examples")))
    assert not batch["token_type_ids"].any()
    assert not {"position_ids", "sequence_ids"} & set(batch)


def test_where_the_texts_of_a_packed_row_are():
    starts = np.array([[1, 0, 0, 1, 0, 0], [1, 0, 1, 0, 1, 0]], bool)
    inside = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]], bool)
    texts = pipeline._texts(tf.constant(starts), tf.constant(inside))
    assert texts["sequence_ids"].numpy().tolist() == [[1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 3, 3]]
    assert texts["position_ids"].numpy().tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 0, 1]]


def test_packed_rows_are_told_apart_before_anything_is_masked(config, tmp_path):
    """Half of the tokens are predicted, and random ones may be [CLS]: the texts are where they were all the same."""
    half = MaskingConfig(rate=0.5, random_tokens="all")
    phase = Phase(sequence_length=64, batch_size=8, steps=30, max_predictions=30)
    examples, config = of_format(config, "packed", tmp_path / "examples", masking=half, phases=(phase,))
    reader = examples.split("train", 64)
    records = {tuple(record[3:]): record for record in reader.read(np.arange(len(reader)))}
    texts = 0
    for batch in itertools.islice(pipeline.batches(examples, config), 20):
        assert all(batch[name].dtype == np.int32 for name in ("sequence_ids", "position_ids"))
        for i, row in enumerate(unmasked(batch)):
            length = records[tuple(row)][2]
            starts = np.flatnonzero(row == examples.tokenizer.special_ids["[CLS]"])
            sizes = np.diff([*starts, length])
            padding = [0] * (64 - length)
            sequences = [number + 1 for number, size in enumerate(sizes) for _ in range(size)]
            assert batch["sequence_ids"][i].tolist() == sequences + padding
            positions = [place for size in sizes for place in range(size)]
            assert batch["position_ids"][i].tolist() == positions + padding
            assert batch["masked_lm_weights"][i].sum() == min(30, round(0.5 * length), length - 2 * len(sizes))
            texts += len(sizes)
    assert texts > 1.3 * 20 * 8
