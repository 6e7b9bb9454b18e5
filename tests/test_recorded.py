"""Beside numbers that the code of others gave: what is recorded, how, and that ours gives the same.

`pretraining_data.json`: create_pretraining_data.py of google-research/bert (eedf571), unmodified, on TensorFlow 2.21's
compat.v1. The masked tokens of texts of 10 to 512 tokens at a rate of 0.15; mean and standard deviation over 200 passes
through the documents below, at length 64. `squad_scores.json`: SQuAD's own evaluate-v1.1.py and evaluate-v2.0.py (-n
null odds, -t 1e9) on random answers.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_prepare import numbered_documents

from bert_jax.config import ExamplesConfig, MaskingConfig
from bert_jax.data import examples, tokenizers
from bert_jax.data.masking import Masker, RowDraws
from bert_jax.tasks import squad_metrics

FOLDER = Path(__file__).parent / "recorded"
DATA = json.loads((FOLDER / "pretraining_data.json").read_text())
SQUAD = json.loads((FOLDER / "squad_scores.json").read_text())


@pytest.mark.parametrize("most", [20, 77])
def test_as_many_tokens_are_masked(most):
    tokenizer = tokenizers.WordPiece([*tokenizers.SPECIAL, *(f"w{i}" for i in range(60))], True)
    masker = Masker.from_config(MaskingConfig(), most, tokenizer)
    lengths = np.arange(10, 513)
    ids = np.where(np.arange(512) < lengths[:, None] - 2, 20, tokenizer.special_ids["[PAD]"]).astype(np.int32)
    weights = masker(tf.constant(ids), tf.constant(lengths), RowDraws(0, 0, (range(len(ids)),)))[3].numpy()
    assert weights.sum(1).tolist() == DATA["masked"][str(most)]


def test_pairs_are_as_many_as_long_and_as_often_random():
    documents, rng, runs = numbered_documents(random.Random(1)), random.Random(2), []
    for _ in range(50):
        made = list(examples.build(documents, 64, ExamplesConfig(short_sequence_probability=0.1), rng))
        is_random = np.array([label for label, _ in made], bool)
        a, b = np.array([[len(a), len(b)] for _, [(a, b)] in made]).T
        lengths = a.mean(), b.mean(), a[is_random].mean(), b[is_random].mean()
        runs.append([len(made), is_random.mean(), *lengths, (a + b == 61).mean()])
    for (name, (mean, deviation)), ours in zip(DATA["pairs"].items(), np.mean(runs, axis=0), strict=True):
        assert abs(ours - mean) < 4 * deviation * np.sqrt(1 / 50 + 1 / 200), name


@pytest.mark.parametrize("number", range(len(SQUAD)))
def test_scores_of_squad(number):
    case = SQUAD[number]
    ours = squad_metrics.evaluate_unanswerable(case["answers"], case["golds"], case["odds"])
    assert ours == pytest.approx(case["v2.0"])
    answers, golds = zip(*((a, g) for a, g in zip(case["answers"], case["golds"], strict=True) if g), strict=True)
    assert squad_metrics.evaluate(list(answers), list(golds)) == pytest.approx(case["v1.1"])
