"""The command line: what bad input says, that it writes nothing, and a run from text to filled masks."""

import dataclasses
import errno
import json
import os
import sys
from pathlib import Path

import pytest
from conftest import small_config, with_devices, write_corpus

import bert_jax
from bert_jax.cli.main import COMMANDS, main
from bert_jax.config import TokenizerConfig
from bert_jax.data.prepare import prepare
from bert_jax.files import contents


@pytest.fixture
def place(tmp_path):
    """A folder with a corpus, a config and examples of it."""
    config = small_config(write_corpus(tmp_path / "corpus.txt"))
    text = f"from bert_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n"
    (tmp_path / "small.py").write_text(text)
    (tmp_path / "empty.txt").write_text("\n\n  \n")
    (tmp_path / "latin.txt").write_bytes(b"fine\nna\xefve\n")
    (tmp_path / "typo.py").write_text(text.replace("learning_rate", "learning_rat"))
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str]:
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as end:  # tyro's own for a flag.
        code = end.code
    return code, capsys.readouterr().err


def snapshot(folder) -> list:
    return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*"))


@pytest.mark.parametrize("command", ["prepare", "pretrain"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--corpus.files", "{}/none.txt"], "none.txt: no such file"),
        (["--corpus.files", "{}/empty.txt"], "empty.txt: the corpus is empty"),
        (["--corpus.files", "{}/latin.txt"], "latin.txt, line 2: not UTF-8"),
        (["--tokenizer.path", "{}/vocab.txt"], "vocab.txt: no such tokenizer file"),
        (["--tokenizer.path", "{}/corpus.txt"], "corpus.txt: the vocabulary lacks [PAD]"),
        (
            ["--phases.0.sequence-length", "128"],
            "phases.0.sequence_length: is 128 but model.max_position_embeddings is 64",
        ),
        (["--model.vocab-size", "20"], "model.vocab_size is 20, the tokenizer has 200"),
        (["--optimizer.learning-rate", "-1"], "optimizer.learning_rate: is -1.0"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(capsys, place, command, flags, message):
    before = snapshot(place)
    out = ["--output", place / "a/out"] if command == "prepare" else ["--workdir", place / "a/out"]
    flags = [flag.format(place) for flag in flags]
    code, error = run(capsys, command, "--config", place / "small.py", *out, *flags)
    # Before it there may be progress bars, drawn over each other; after it nothing.
    last = error.rstrip("\n").split("\n")[-1]
    assert code == 2
    assert last.startswith("bert-jax: ") and message in last
    assert "Traceback" not in error
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pretrain", "--config", "{}/small.py", "--workdir", "{}/w", "--optimizer.learning-rat", "1"],
            "learning-rate",
        ),
        (["pretrain", "--config", "{}/typo.py", "--workdir", "{}/w"], "did you mean 'learning_rate'"),
        (["pretrain", "--config", "pretrain_tiney", "--workdir", "{}/w"], "pretrain_tiny"),
        (["pretrain", "--config", "{}/small.py"], "--workdir"),
        (["pretrain", "--config", "{}/small.py", "--workdir", "{}/w", "--phases.0.batch-size", "x"], "batch-size"),
        (["pretrain", "--config", "{}/small.py", "--workdir", "{}/w", "--mesh.data", "3"], "mesh: 3 x 1 x 1"),
        (["pretrain", "--config", "{}/small.py", "--workdir", "{}/w", "--examples", "{}"], "holds no examples"),
        (["pretrain", "--config", "{}/small.py", "--workdir", "{}/w", "--init", "{}"], "holds no checkpoint"),
        (["predict", "fill-mask", "--model", "{}", "a [MASK]"], "holds no checkpoint"),
        (["finetune", "--workdir", "{}/w", "--init", "{}", "--seeds", "0"], "--seeds: is 0, must be at least 1"),
        (["finetune", "--workdir", "{}/w", "--init", "{}", "--seeds", "2", "--profile"], "--profile: traces one run"),
        (["bench", "train", "--config", "{}/small.py", "--json", "{}/no/x.json"], "x.json: no such folder"),
        (["bench", "train", "--config", "{}/small.py", "--optimizer.name", "lamb"], "the peer has AdamW"),
        (["pretrian"], "no command 'pretrian'"),
    ],
)
def test_mistyped_commands_and_fields(capsys, place, arguments, message):
    before = snapshot(place)
    code, error = run(capsys, *(a.format(place) for a in arguments))
    assert code == 2
    assert message in error
    assert snapshot(place) == before


def test_batches_that_eight_devices_cannot_share(place):
    import subprocess
    import sys

    before = snapshot(place)
    command = [sys.executable, "-m", "bert_jax", "pretrain", "--config", str(place / "small.py")]
    command += ["--workdir", str(place / "w"), "--phases.0.batch-size", "12"]
    environment = with_devices(8)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "phases.0.batch_size: 12 isn't divisible by data 8 x fsdp 1 devices" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(place) == before


def test_examples_cut_off_or_of_another_tokenizer_or_length(capsys, place, config):
    examples = prepare(small_config(place / "corpus.txt"), place / "examples").folder
    prepare(dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_size=120)), place / "others")
    vocab = bert_jax.data.records.Examples(place / "others").tokenizer.pieces()
    (place / "vocab.txt").write_text("\n".join(vocab) + "\n")
    pretrain = ["pretrain", "--config", place / "small.py", "--workdir", place / "w", "--examples", examples]
    cases = [
        (["--tokenizer.path", place / "vocab.txt"], "vocab.txt: not the tokenizer that made"),
        (["--phases.0.sequence-length", "48"], "no examples of length 48, only 32"),
        (["--examples.format", "packed"], "examples.format was 'sentence_pairs'"),
        (["--model.vocab-size", "100"], "model.vocab_size: is 100"),
    ]
    before = snapshot(place)
    for flags, message in cases:
        code, error = run(capsys, *pretrain, *flags)
        assert (code, message in error) == (2, True), error
    assert snapshot(place) == before
    shard = examples / "32/train/00000.records"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    before = snapshot(place)
    code, error = run(capsys, *pretrain)
    assert (code, f"{shard}: " in error, "Traceback" in error) == (2, True, False)
    assert snapshot(place) == before


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_from_text_to_filled_masks(capsys, monkeypatch, place, kind):
    workdir = place / "run"
    flags = ["--tokenizer.kind", kind, "--phases.0.steps", "12"]
    flags += ["--tokenizer.vocab-size", "120"] if kind == "sentencepiece" else []
    assert main(["pretrain", "--config", str(place / "small.py"), "--workdir", str(workdir), *flags]) == 0
    report = capsys.readouterr().out
    for line in ("held-out masked-LM loss", "unigram's loss", "next-sentence accuracy", "loss.png"):
        assert line in report
    command = ["predict", "fill-mask", "--model", str(workdir), "--top", "3", "The [MASK] watches a [MASK]."]
    assert main(command) == 0
    assert [len(guesses) for guesses in json.loads(capsys.readouterr().out)["masks"]] == [3, 3]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(command) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 3 and all(line.count("%") == 3 for line in lines[1:])
    bert = bert_jax.load(workdir / "checkpoints/12")
    guesses = bert.fill_mask("The [MASK] watches a bird.", top=200)[0]
    assert sum(guess.probability for guess in guesses) == pytest.approx(1, abs=0.2)
    with pytest.raises(bert_jax.InputError, match="holds no"):
        bert.fill_mask("nothing to fill")
    with pytest.raises(bert_jax.InputError, match="the model reads 64"):
        bert.fill_mask("the dog " * 70 + "[MASK]")


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["bench", "finetune"], ["predict", "embed"]])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    printed = capsys.readouterr()
    assert end.value.code == 0 and f"usage: bert-jax {' '.join(command)}" in printed.out and not printed.err


@pytest.mark.parametrize("number", contents.REMEDIES, ids=errno.errorcode.get)
def test_what_the_system_refuses_is_said_with_what_to_do(monkeypatch, capsys, number):
    def fail(_):
        raise OSError(number, os.strerror(number), "a/file")

    monkeypatch.setattr("bert_jax.cli.prepare.run", fail)
    assert main(["prepare"]) == 2
    assert capsys.readouterr().err == f"bert-jax: a/file: {os.strerror(number)}; {contents.REMEDIES[number]}\n"


def test_a_config_file_that_cannot_be_read_is_named_with_the_remedy(monkeypatch, tmp_path, capsys):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    file = tmp_path / "small.py"
    file.touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)  # Root, as whom tests may run, may read any file.
    assert main(["prepare", "--config", str(file), "--output", str(tmp_path / "examples")]) == 2
    assert capsys.readouterr().err == f"bert-jax: {file}: Permission denied; check its permissions\n"


def test_an_error_of_the_systems_that_is_a_bug_is_shown(monkeypatch):
    def fail(_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("bert_jax.cli.prepare.run", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["prepare"])
