"""What is shown of examples: a literal, and the batches' own tokens."""

import dataclasses
import json
import re
import zlib

import numpy as np
import pytest

from bert_jax.config import ExamplesConfig, InputError
from bert_jax.data import pipeline
from bert_jax.data.prepare import prepare
from bert_jax.data.records import Examples
from bert_jax.data.show import _described, show

PIECES = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "bark", "##s", "cat"]
ROW = {
    "input_ids": np.array([1, 4, 3, 2, 8, 7, 2, 0]),
    "token_type_ids": np.array([0, 0, 0, 0, 1, 1, 1, 0]),
    "attention_mask": np.array([1, 1, 1, 1, 1, 1, 1, 0]),
    "masked_lm_positions": np.array([2, 4, 5, 0]),
    "masked_lm_ids": np.array([5, 6, 7, 0]),
    "masked_lm_weights": np.array([1.0, 1.0, 1.0, 0.0]),
    "next_sentence_labels": np.array(1),
}


def test_a_pair_and_a_row_of_texts():
    assert _described(ROW, PIECES, sentence_pairs=True).split("\n") == [
        "7 of 8 positions used, 3 to predict; B is from elsewhere",
        "  A  [CLS] the [MASK]{dog} [SEP]",
        "  B  cat{bark} ##s{##s} [SEP]",
    ]
    packed = ROW | {"sequence_ids": np.array([1, 1, 1, 1, 2, 2, 2, 0])}
    assert _described(packed, PIECES, sentence_pairs=False).split("\n") == [
        "7 of 8 positions used, 3 to predict",
        "  1  [CLS] the [MASK]{dog} [SEP]",
        "  2  cat{bark} ##s{##s} [SEP]",
    ]
    assert _described(ROW, PIECES, sentence_pairs=False).split("\n")[1].startswith("  1  [CLS] the")


def test_damaged_examples_are_one_line(config, tmp_path):
    examples = prepare(config, tmp_path / "examples")
    file = tmp_path / "examples/32/train/00000.records"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"00000\.records: .* bytes, the manifest says .*; prepare"):
        show(examples, config, 3)
    file.write_bytes(b"\xff" * len(whole))
    manifest = json.loads((tmp_path / "examples/manifest.json").read_text())
    manifest["lengths"]["32"]["train"][0]["crc32"] = zlib.crc32(file.read_bytes())
    del manifest["checksum"]
    (tmp_path / "examples/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="examples: has ids beyond its vocabulary of .*; prepare"):
        show(Examples(tmp_path / "examples"), config, 3)


def test_what_is_shown_is_what_the_batches_hold(config, tmp_path):
    config = dataclasses.replace(config, examples=ExamplesConfig("packed"))
    examples = prepare(config, tmp_path / "packed")
    shown = show(examples, config, 11)  # More than a batch.
    assert len(shown) == 11
    pieces = np.array(examples.tokenizer.pieces())
    batches = pipeline.batches(examples, config)
    ids = np.concatenate([next(batches)["input_ids"], next(batches)["input_ids"]])
    for number, (text, row) in enumerate(zip(shown, ids[:11], strict=True), 1):
        first, *lines = text.split("\n")
        assert first.startswith(f"example {number}: ")
        tokens = [token for line in lines for token in re.sub(r"\{\S*?\}(?= |$)", "", line[5:]).split()]
        assert tokens == [piece for piece in pieces[row] if piece != "[PAD]"]
