"""Fine-tuning: it learns, resumes bit for bit, wastes little on padding, and its scores are written down."""

import copy
import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
import sys

import flax.traverse_util
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import with_devices
from test_bench import MINILM
from workdirs import assert_same_state, saved_state
from workdirs import rows as logged

from bert_jax import tasks
from bert_jax.bench import torch_finetune
from bert_jax.cli.main import main
from bert_jax.config import FinetuneConfig, InputError, MeshConfig, OptimizerConfig, RunConfig, TaskConfig
from bert_jax.config.files import load_config
from bert_jax.convert import names, pretrained
from bert_jax.convert.origin import Folder
from bert_jax.inference.engine import Engine
from bert_jax.runs import finetuning
from bert_jax.runs.evaluation import evaluate, evaluate_task
from bert_jax.runs.finetuning import finetune, sweep
from bert_jax.runs.pretraining import pretrain
from bert_jax.tasks.batches import Batches


@pytest.fixture(scope="module")
def model(config, examples, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain(config, workdir, examples.folder)
    return workdir


def write_table(file, count: int, seed: int):
    """Whether a sentence is about the dog or the king; some are long."""
    rng = random.Random(seed)
    lines = ["text\tlabel"]
    for _ in range(count):
        subject = rng.choice(["dog", "king"])
        filler = " ".join(rng.choice(["river", "hill", "clock", "train"]) for _ in range(rng.choice([1, 9])))
        lines.append(f"the {subject} watches the {filler}\t{subject}")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return write_table(folder / "train.tsv", 200, 0), write_table(folder / "dev.tsv", 50, 1)


@pytest.fixture
def task_config(tables):
    train, dev = tables
    return FinetuneConfig(
        task=TaskConfig(train=str(train), dev=str(dev)),
        sequence_length=32,
        batch_size=16,
        evaluation_batch_size=16,
        epochs=8,
        optimizer=OptimizerConfig(learning_rate=5e-3, decay="from_warmup"),
        run=RunConfig(keep_last=2),
    )


def test_it_learns_resumes_bit_for_bit_and_writes_its_scores(model, task_config, tmp_path, capsys):
    result = finetune(task_config, model, tmp_path / "run")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("compiling")]
    assert [re.sub(r"\d+ x \d+", "R x L", line) for line in said] == [
        "compiling a training step of R x L tokens",
        "compiling an evaluation step of R x L tokens on dev",
    ]
    assert result.step == 8 * 13 and result.scores["dev_accuracy"] > 95
    assert (tmp_path / "run/loss.png").read_bytes().startswith(b"\x89PNG")
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints" / str(result.step))
    kept = sorted(int(folder.name) for folder in (tmp_path / "cut/checkpoints").iterdir())
    assert finetune(task_config, model, tmp_path / "cut").step == result.step
    assert kept and kept[-1] < result.step
    assert_same_state(saved_state(tmp_path / "cut", result.step), saved_state(tmp_path / "run", result.step))

    found = pretrained.read(tmp_path / "run")
    assert found.head.labels == ("dog", "king")
    scores = evaluate_task(found, task_config, tmp_path / "scores")
    assert scores["dev_accuracy"] >= result.scores["dev_accuracy"]  # The best checkpoint's.
    rows = [json.loads(line) for line in (tmp_path / "scores/dev/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 50 and np.mean([row["right"] for row in rows]) * 100 == pytest.approx(scores["dev_accuracy"])
    page = (tmp_path / "scores/dev/page.html").read_text()
    assert "What was taken for what" in page and "data:image/png" in page
    assert json.loads((tmp_path / "scores/scores.json").read_text()) == pytest.approx(scores)


def test_outputs_that_overflow_are_no_score_and_training_goes_on(model, task_config, tmp_path, monkeypatch, capsys):
    logits, number = Engine.logits, iter(range(9))

    def overflows_first(self, features, **how):
        values = logits(self, features, **how)
        return [values[0] * np.nan, *values[1:]] if next(number) == 0 else values

    monkeypatch.setattr(Engine, "logits", overflows_first)
    config = dataclasses.replace(task_config, epochs=2, task=dataclasses.replace(task_config.task, train_examples=32))
    result = finetune(config, model, tmp_path / "run")
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert [line.partition(";")[0] for line in warned] == ["warning: step 2: dev_macro_f1 is nan, dev_accuracy is nan"]
    assert "never the best" in warned[0]
    assert (result.step, result.best) == (4, 4) and result.scores["dev_accuracy"] > 0
    scores = {row["step"]: row["dev_accuracy"] for row in logged(tmp_path / "run") if "dev_accuracy" in row}
    assert scores == {2: None, 4: result.scores["dev_accuracy"]}


@pytest.mark.parametrize(
    ("layers", "size", "length", "examples"),
    [(2, 8, 48, 32), pytest.param(6, 32, 128, None, marks=pytest.mark.long)],
)
def test_thirty_steps_have_the_losses_of_torch(real_data, tmp_path, layers, size, length, examples):
    """One start, RTE's recipe without dropout and at a higher rate, the same batches."""
    task_config = TaskConfig(name="rte", folder=str(real_data / "glue/RTE"), train_examples=examples)
    task_config = dataclasses.replace(task_config, dev=str(tmp_path / "dev.tsv"))
    (tmp_path / "dev.tsv").write_text("".join((real_data / "glue/RTE/dev.tsv").open().readlines()[:9]))
    task = tasks.make(task_config)
    labels = dict(enumerate(task.head.labels))
    names = dict(id2label=labels, label2id={label: i for i, label in labels.items()})
    torch.manual_seed(0)
    sizes = dict(num_hidden_layers=layers, num_labels=2)
    peer = transformers.AutoModelForSequenceClassification.from_pretrained(MINILM, **sizes, **names)
    peer.save_pretrained(tmp_path / "start")
    transformers.AutoTokenizer.from_pretrained(MINILM).save_pretrained(tmp_path / "start")
    found = pretrained.read(tmp_path / "start")

    config = load_config("finetune_glue", FinetuneConfig, task="rte")
    drawn = finetuning.drawn(task.read("train"), dataclasses.replace(config, task=task_config))
    features = task.features(drawn, found.tokenizer, length, training=True)
    batches = Batches(features, size, task.head, found.tokenizer.special_ids["[PAD]"])
    config = dataclasses.replace(
        config,
        task=task_config,
        batch_size=size,
        sequence_length=length,
        epochs=29.5 / len(batches),  # Rounded up.
        dropout=0.0,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=1e-4),  # So that the loss moves.
        run=dataclasses.replace(config.run, log_every=1),
    )
    assert finetune(config, tmp_path / "start", tmp_path / "run").step == 30
    ours = [row["loss"] for row in logged(tmp_path / "run") if "loss" in row]

    # The peer's evaluation mode has no dropout.
    asked = dataclasses.asdict(config.optimizer) | {"warmup_steps": 3, "steps": 30}
    optimizer, schedule = torch_finetune.recipe(peer.eval(), asked)
    start = copy.deepcopy(peer)
    theirs, untrained = [], []
    for step in range(30):
        epoch, number = divmod(step, len(batches))
        rows = [dataclasses.asdict(features[i]) for i in batches.epoch(config.seed, epoch)[number]]
        batch = torch_finetune.collate(rows, task.head.kind)
        with torch.inference_mode():
            untrained.append(float(start(**batch).loss))
        theirs.append(torch_finetune.step(peer, optimizer, schedule, batch, asked))
    assert len(ours) == 30 and np.abs(np.subtract(ours, theirs)).max() < 1e-4
    assert np.abs(np.subtract(theirs, untrained)).max() > 1e-2  # They learned: the updates are compared too.


def test_four_devices_and_two_parts_have_the_losses_of_one(model, task_config, tmp_path):
    """Without dropout, whose draws depend on the rows; a batch of 15 divides by neither."""
    task = dataclasses.replace(task_config.task, train_examples=60)
    changed = {"task": task, "batch_size": 15, "evaluation_batch_size": 15, "epochs": 3.0, "dropout": 0.0}
    config = dataclasses.replace(task_config, **changed, run=RunConfig(log_every=1))
    one = finetune(config, model, tmp_path / "one")
    run = dataclasses.replace(config.run, accumulate_steps=2)
    many = dataclasses.replace(config, run=run, mesh=MeshConfig(data=2, fsdp=2))
    code = f"""
from bert_jax.config import *
from bert_jax.runs.finetuning import finetune
finetune({many!r}, {str(model)!r}, {str(tmp_path / "many")!r})
"""
    environment = with_devices(4)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    losses = [[row["loss"] for row in logged(tmp_path / name) if "loss" in row] for name in ("one", "many")]
    assert len(losses[0]) == one.step and np.abs(np.subtract(*losses)).max() < 1e-4
    scores = [logged(tmp_path / name)[-1]["dev_accuracy"] for name in ("one", "many")]
    assert scores[0] == scores[1]


def test_seeds_and_rates_end_in_mean_and_deviation(model, task_config, tmp_path):
    config = dataclasses.replace(task_config, epochs=1)
    summary = sweep(config, model, tmp_path / "sweep", 2, (3e-3,))
    runs = summary["rates"]["0.003"]["dev_accuracy"]["runs"]
    assert len(runs) == 2 and len(list((tmp_path / "sweep").glob("lr-*-seed-*"))) == 2
    assert summary["rates"]["0.003"]["dev_accuracy"]["mean"] == pytest.approx(np.mean(runs))
    assert summary["rates"]["0.003"]["dev_accuracy"]["deviation"] == pytest.approx(np.std(runs, ddof=1))
    for changed in ({"epochs": 2}, {"task": dataclasses.replace(config.task, train_examples=9)}):
        with pytest.raises(InputError, match="in the run that is finished, is (2.0|9) now"):
            sweep(dataclasses.replace(config, **changed), model, tmp_path / "sweep", 2, (3e-3,))
    before = (tmp_path / "sweep/lr-0.003-seed-0/metrics.jsonl").stat().st_mtime_ns
    assert sweep(config, model, tmp_path / "sweep", 2, (3e-3,)) == summary
    assert (tmp_path / "sweep/lr-0.003-seed-0/metrics.jsonl").stat().st_mtime_ns == before


def test_a_run_of_a_sweep_without_the_scores_of_the_others_is_named(tmp_path):
    """But for types of spans, which a run may have seen or not."""
    runs = {tmp_path / "a": {"dev_f1": 1.0, "dev_f1/PER": 2.0}, tmp_path / "b": {"dev_f1": 3.0}}
    finetuning._check_alike(runs)
    spreads = finetuning._spreads([*runs.values()])
    assert {name: spread["runs"] for name, spread in spreads.items()} == {"dev_f1": [1.0, 3.0], "dev_f1/PER": [2.0]}
    with pytest.raises(InputError, match=r"c/scores.json: lacks dev_f1, which other runs have; remove it"):
        finetuning._check_alike({**runs, tmp_path / "c": {}})


def test_a_warm_cache_compiles_no_step_again(model, task_config, tmp_path):
    """Two processes, one after the other: the second finds all its programs, in the user's cache."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    task = dataclasses.replace(task_config.task, train_examples=32)  # Two batches, which few shapes fit.
    config = dataclasses.replace(task_config, task=task, epochs=1)
    code = f"""
import sys, jax
from bert_jax.config import *
from bert_jax.runs.finetuning import finetune
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
finetune({config!r}, {str(model)!r}, sys.argv[1])
print(sum(event.endswith("cache_misses") for event in events), file=sys.stderr)
"""
    for name, expected in (("cold", False), ("warm", True)):
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and (done.stderr.splitlines()[-1] == "0") == expected, done.stderr
    assert list((tmp_path / "cache/bert_jax/programs").glob("cpu-*/*-cache"))


def test_questions_on_paragraphs_go_through_it_too(model, tmp_path):
    answer = {"text": "the dog", "answer_start": 0}
    paragraph = {"context": "the dog watches the king.", "qas": [{"id": "1", "question": "who?", "answers": [answer]}]}
    file = tmp_path / "squad.json"
    file.write_text(json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": [paragraph]}]}))
    task = TaskConfig(name="squad", train=str(file), dev=str(file), query_length=8, stride=8)
    config = FinetuneConfig(task=task, sequence_length=32, batch_size=4, evaluation_batch_size=4, epochs=2)
    for _ in range(2):  # Resumed, the questions are known again.
        result = finetune(config, model, tmp_path / "run")
        assert result.step == 2 and 0 <= result.scores["dev_f1"] <= 100


def test_data_in_memory_make_the_model_that_a_file_makes_and_resume_its_run(model, task_config, tables, tmp_path):
    config = dataclasses.replace(task_config, epochs=1)
    of_file = finetune(config, model, tmp_path / "run")
    train, dev = (pd.read_csv(table, sep="\t") for table in tables)
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, train=None, dev=None))
    in_memory = finetune(config, model, tmp_path / "memory", train=train, dev=dev)
    assert (in_memory.step, in_memory.scores) == (of_file.step, of_file.scores)
    assert_same_state(saved_state(tmp_path / "memory", in_memory.step), saved_state(tmp_path / "run", of_file.step))
    assert finetune(config, model, tmp_path / "run", train=train.to_dict("records"), dev=dev).step == of_file.step
    with pytest.raises(InputError, match="the examples aren't those of the run to resume"):
        finetune(config, model, tmp_path / "run", train=train[1:], dev=dev)

    assert in_memory.load().run.task.train is None and in_memory.load().head.labels == ("dog", "king")
    pretrained.export(tmp_path / "memory", tmp_path / "exported", "hf")
    card = (tmp_path / "exported/README.md").read_text()
    assert "in the memory of the program" in card and f"--init {model} --task.train ..." in card
    assert evaluate(tmp_path / "run", test=dev) == pytest.approx(
        {f"test_{name.removeprefix('dev_')}": value for name, value in of_file.scores.items()}
    )
    with pytest.raises(InputError, match="dev: data of a task, but the config is of pretraining"):
        evaluate(model, dev=dev)


def test_another_task_in_the_same_workdir_is_refused(model, task_config, tmp_path):
    config = dataclasses.replace(task_config, epochs=1)
    finetune(config, model, tmp_path / "run")
    with pytest.raises(InputError, match="batch_size was 16 .* is 8"):
        finetune(dataclasses.replace(config, batch_size=8), model, tmp_path / "run")
    with pytest.raises(InputError, match="task.train_examples was None .* is 9"):
        finetune(
            dataclasses.replace(config, task=dataclasses.replace(config.task, train_examples=9)),
            model,
            tmp_path / "run",
        )


def test_bad_input_is_one_line(model, task_config, tmp_path, capsys):
    (tmp_path / "bad.tsv").write_text("text\tlabel\na dog\tdog\na cat\tcat\nonly text\n")
    arguments = ["finetune", "--init", str(model), "--workdir", str(tmp_path / "run"), "--sequence-length", "32"]
    assert main([*arguments, "--task.train", str(tmp_path / "bad.tsv")]) == 2
    error = capsys.readouterr().err
    assert "bad.tsv, line 4" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pairs_for_a_model_of_single_texts_are_refused_at_once(model, task_config, tmp_path):
    saved = pretrained.read(model)
    of_one = dataclasses.replace(saved.model, type_vocab_size=1)
    params = flax.traverse_util.unflatten_dict(names.fresh(of_one, saved.head), sep="/")
    pretrained.save(dataclasses.replace(saved, model=of_one, params=params, origin=Folder("")), tmp_path / "model")
    pairs = [{"text": "the dog", "other": "the king", "label": label} for label in ("right", "wrong")]
    config = dataclasses.replace(task_config, task=TaskConfig(pair_column="other"))
    with pytest.raises(InputError, match="marks 2 segments of a text, the model knows 1; take a model with type_vocab"):
        finetune(config, tmp_path / "model", tmp_path / "run", train=pairs, dev=pairs)


def test_a_model_that_reads_less_is_named_in_evaluation_too(model, task_config):
    with pytest.raises(InputError, match="sequence_length: is 128, the model reads 64 tokens"):
        evaluate_task(pretrained.read(model), dataclasses.replace(task_config, sequence_length=128), None)
