"""What a person adds from outside, by a file of their own: each of `guests/` is a section of CONTRIBUTING.md."""

import contextlib
import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.flax
import torch
from heads import assert_equal, case
from workdirs import rows

import bert_jax
from bert_jax import models, objectives, tasks
from bert_jax.cli.main import main
from bert_jax.config import FinetuneConfig, HeadConfig, InputError, ModelConfig
from bert_jax.config.files import execute, load_config
from bert_jax.convert import names, pretrained, stablehlo
from bert_jax.convert.origin import Folder
from bert_jax.data.tokenizers import SPECIAL, WordPiece
from bert_jax.devices.sharding import make_mesh
from bert_jax.models import forward, make_model
from bert_jax.training import optimizer, optimizers
from bert_jax.training.program import make_program, pretraining_setup

GUESTS = Path(__file__).parent / "guests"
REGISTRIES = (
    *(models.ARCHITECTURES, models.HEADS, objectives.OBJECTIVES, optimizers.OPTIMIZERS, optimizer.SCHEDULES),
    *(tasks.TASKS, pretrained.FORMATS),
)
GOOD, BAD = ("a great film", "a lovely play"), ("an awful film", "a dull play")
LABELS = ("bad", "good")
WORDS = [*SPECIAL, *sorted({word for text in GOOD + BAD for word in text.split()})]


@contextlib.contextmanager
def as_before():
    """The registries, afterwards."""
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, values in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(values)


@pytest.fixture(autouse=True)
def registries():
    with as_before():
        yield


def save_model(folder: Path, model: ModelConfig, head: HeadConfig) -> None:
    """With random weights, and the words of the texts."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.3, shape) for name, shape in names.array_shapes(model, head, "hf").items()}
    params = names.to_params(arrays.get, model, head, "hf")
    pretrained.save(pretrained.Pretrained(model, head, WordPiece(WORDS, True), params, Folder("a test")), folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model to start from, one to learn from, and a table."""
    folder = tmp_path_factory.mktemp("guests")
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = ModelConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes)
    save_model(folder / "base", model, HeadConfig("pretraining"))
    save_model(folder / "teacher", model, HeadConfig("sequence_classification", LABELS))
    lines = [f"{good},good\n{bad},bad\n" for good, bad in zip(GOOD, BAD, strict=True)]
    (folder / "table.csv").write_text("text,label\n" + "".join(lines) * 4)
    return folder


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


def finetune(guest: str, run: str, *flags: str, table: str = "table.csv") -> int:
    """By the command line, from a config file that adds the guest."""
    files = ["--task.train", table, "--task.dev", table]
    config = ["--config", str(GUESTS / f"{guest}.py")]
    return main(["finetune", *config, "--init", "base", "--workdir", run, *files, *flags])


def outputs_of_stablehlo(folder: Path, inputs: dict) -> dict:
    program = jax.export.deserialize((folder / stablehlo.PROGRAM).read_bytes())
    weights = safetensors.flax.load_file(folder / stablehlo.WEIGHTS)
    return program.call(weights, *(inputs[name] for name in ("input_ids", "token_type_ids", "attention_mask")))


def test_a_head(here, capsys):
    assert finetune("head", "head") == 0
    assert main(["evaluate", "--model", "head", "--config", str(GUESTS / "head.py"), "--task.dev", "table.csv"]) == 0
    assert "dev_accuracy" in capsys.readouterr().out
    bert = bert_jax.load("head")
    assert (bert.head.kind, bert.head.labels) == ("mean_classification", LABELS)
    # Alone in a row, and several in one.
    logits = np.asarray(bert(GOOD + BAD))
    found = [one.probabilities["good"] for one in bert.classify(GOOD + BAD)]
    np.testing.assert_allclose(found, torch.softmax(torch.tensor(logits), -1)[:, 1], atol=1e-5)

    saved = pretrained.read("head")
    for form in ("hf", "tf1"):
        bert_jax.export(saved, f"head-{form}", form)
        assert_equal(bert_jax.load(f"head-{form}").params, bert.params)
    bert_jax.export(saved, "head-hlo", "stablehlo")
    exported = outputs_of_stablehlo(here / "head-hlo", bert.tokenize(GOOD + BAD))
    np.testing.assert_allclose(exported["logits"], logits, atol=1e-5)
    assert bert_jax.load("head-tf1").head == bert.head
    with pytest.raises(InputError, match="--format onnx: a head of the kind mean_classification has no graph"):
        bert_jax.export(saved, "head-onnx", "onnx")

    of_torch = case("encoder without pooler")
    model = make_model(of_torch.model, bert.head)
    kernel = np.random.default_rng(0).normal(size=(of_torch.model.hidden_size, 2)).astype(np.float32)
    params = of_torch.params | {"classifier": {"dense": {"kernel": kernel, "bias": np.array([0.1, -0.2], np.float32)}}}
    batch = of_torch.batch(3, 12)
    hidden, mask = of_torch.expected(batch)["last_hidden_state"], batch["attention_mask"][..., None]
    expected = (hidden * mask).sum(1) / mask.sum(1) @ kernel + params["classifier"]["dense"]["bias"]
    np.testing.assert_allclose(jax.jit(forward, static_argnums=0)(model, params, batch), expected, atol=1e-4)


def test_an_architecture(here):
    config = load_config(str(GUESTS / "architecture.py"))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=len(WORDS)))
    program = make_program(*pretraining_setup(config), make_mesh(config.mesh))
    assert program.state["params"]["shared"]["encoder"]["shared"]["layer"]["output"]["dense"]["bias"].shape == (1, 32)
    save_model(here / "shared", config.model, HeadConfig("pretraining"))
    table = {"text": [*GOOD, *BAD], "label": ["good", "good", "bad", "bad"]}
    run = FinetuneConfig(sequence_length=16, batch_size=4, epochs=1)
    bert = bert_jax.finetune(run, "shared", "shared-run", train=table, dev=table).load()
    assert (bert.config.architecture, bert.head.labels) == ("shared", LABELS)
    inputs = bert.tokenize(GOOD + BAD)

    # The same layer twice over is BERT.
    params = {"bert": dict(bert.params["shared"]), "classifier": bert.params["classifier"]}
    params["bert"]["encoder"] = jax.tree.map(
        lambda x: np.repeat(x, 2, axis=0), bert.params["shared"]["encoder"]["shared"]
    )
    of_bert = make_model(dataclasses.replace(bert.config, architecture="bert"), bert.head)
    np.testing.assert_allclose(bert.apply(**inputs), jax.jit(of_bert.apply)({"params": params}, **inputs), atol=1e-5)

    found = pretrained.read("shared-run")
    bert_jax.export(found, "shared-hf", "hf")
    assert_equal(bert_jax.load("shared-hf").params, bert.params)
    for form, message in (("onnx", "BERT with shared layers has no graph"), ("tf1", "has no BERT with shared layers")):
        with pytest.raises(InputError, match=f"--format {form}: .*{message}"):
            bert_jax.export(found, f"shared-{form}", form)


@pytest.fixture
def model_and_batch():
    """A classifier, its parameters, and a batch of rows of several texts, one without a label."""
    one = case("classifier")
    batch = one.batch(3, 12)
    ids, first = np.repeat([[0, 1]], 6, axis=1).reshape(1, -1), np.array([[0, 6]])
    batch |= {"sequence_ids": np.tile(np.sort(ids), (3, 1)), "position_ids": np.tile(np.arange(12) % 6, (3, 1))}
    batch |= {"first_tokens": np.tile(first, (3, 1)), "attention_mask": np.ones((3, 12), np.int32)}
    return make_model(one.model, one.head), one.params, batch | {"labels": np.array([[0, 2], [1, -100], [2, 0]])}


def test_an_objective(here, model_and_batch):
    assert finetune("objective", "distilled", "--optimizer.learning-rate", "1e-2", "--epochs", "3") == 0
    learned = [row["distilled_loss"] for row in rows(here / "distilled") if "distilled_loss" in row]
    assert learned[-1] < learned[0]
    student, teacher = bert_jax.load("distilled"), bert_jax.load("teacher")
    assert student.head.labels == LABELS

    about = load_config(str(GUESTS / "objective.py"), FinetuneConfig)
    bert_jax.export("distilled", "distilled-hf", "hf")
    assert "| minimised | distillation |" in (here / "distilled-hf/README.md").read_text()
    model = make_model(student.config, student.head)
    objective = objectives.make_objective(about.objective, model)
    batch = {**student.tokenize(GOOD + BAD), "labels": np.array([[0], [1], [-100], [1]])}
    batch["first_tokens"] = np.zeros((4, 1), np.int32)
    sums = jax.jit(objective.sums)(student.params, objective.constants(), batch)
    log, target = (torch.tensor(np.asarray(bert(GOOD + BAD)))[[0, 1, 3]] / 2 for bert in (student, teacher))
    divergence = torch.nn.KLDivLoss(reduction="batchmean")(log.log_softmax(-1), target.softmax(-1)) * 4
    np.testing.assert_allclose(sums["distilled_loss"] / objective.counts(batch)["distilled"], divergence, rtol=1e-4)


def test_the_objective_of_a_run_is_refused_by_its_name_where_it_is_another(here, capsys):
    flags = ["--objective", "head", "--seed", "3"]
    assert finetune("objective", "plain", *flags) == 0
    capsys.readouterr()
    assert finetune("objective", "plain", *flags[2:]) == 2
    assert "plain: objective was 'head' in the run to resume, is 'distillation' now" in capsys.readouterr().err
    assert finetune("objective", "other", "--objective", "distilation") == 2
    assert "objective: is 'distilation'; did you mean 'distillation'?" in capsys.readouterr().err
    assert not (here / "other").exists()


def test_an_objective_that_compares_all_of_a_batch(here, model_and_batch, capsys):
    assert finetune("objective", "parts", "--objective", "contrastive", "--run.accumulate-steps", "2") == 2
    assert "run.accumulate_steps: is 2, but this objective compares all of a batch" in capsys.readouterr().err
    model, params, batch = model_and_batch
    found = jax.jit(objectives.make_objective("contrastive", model).sums)(params, (), batch)["contrastive_loss"]
    known = batch["labels"].reshape(-1) >= 0
    vectors = torch.tensor(np.asarray(jax.jit(forward, static_argnums=0)(model, params, batch))).reshape(6, -1)[known]
    scores = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], -1) / 0.05
    np.testing.assert_allclose(
        found, torch.nn.functional.cross_entropy(scores, torch.arange(5), reduction="sum"), rtol=1e-4
    )


@pytest.fixture(scope="module")
def run_of_radam(place):
    with as_before(), contextlib.chdir(place):
        assert finetune("optimizer", "radam") == 0
    return place / "radam"


def test_an_optimizer(run_of_radam):
    assert bert_jax.load(run_of_radam).run.optimizer.name == "radam"
    config = load_config(str(GUESTS / "optimizer.py"), FinetuneConfig).optimizer
    config = dataclasses.replace(config, schedule="constant", warmup_steps=0, clip_norm=1e9)
    ours, rate = optimizer.make_optimizer(config), optimizer.schedule(config, 10)
    params, theirs = {"kernel": np.array([1.0, -2.0], np.float32)}, torch.tensor([1.0, -2.0], requires_grad=True)
    state, of_torch = (
        ours.init(params),
        torch.optim.RAdam(
            [theirs], lr=config.learning_rate, weight_decay=config.weight_decay, decoupled_weight_decay=True
        ),
    )
    for step in range(10):
        gradient = np.array([step - 3.0, 0.5], np.float32)
        updates, state = ours.update({"kernel": gradient}, state, params, schedule=rate)
        params = {"kernel": params["kernel"] + np.asarray(updates["kernel"])}
        theirs.grad = torch.tensor(gradient)
        of_torch.step()
        np.testing.assert_allclose(params["kernel"], theirs.detach(), rtol=1e-5)


def test_a_schedule(run_of_radam):
    rates = {row["step"]: row["learning_rate"] for row in rows(run_of_radam) if "learning_rate" in row}
    total = max(rates)
    warmup = total // 4
    expected = {
        t: 1e-3 * (t / warmup if t < warmup else 1 - ((t - warmup) / (total - warmup)) ** 0.5) for t in range(total)
    }
    assert rates == pytest.approx({step: expected[step - 1] for step in rates}, rel=1e-4) and len(rates) > 1


def test_a_task(here, capsys):
    lines = [f"__label__{label} {text}" for texts, label in ((GOOD, "good"), (BAD, "bad")) for text in texts]
    Path("fasttext.txt").write_text("\n".join(lines * 4) + "\n")
    assert finetune("task", "fasttext", table="fasttext.txt") == 0
    assert main(["evaluate", "--model", "fasttext", "--output", "scores"]) == 0
    bert, predictions = bert_jax.load("fasttext"), (here / "scores/dev/predictions.jsonl").read_text().splitlines()
    assert bert.head.labels == LABELS and json.loads(predictions[0])["text"] == GOOD[0]
    assert bert.classify(GOOD[0]).label == json.loads(predictions[0])["predicted"]
    Path("bad.txt").write_text(f"{lines[0]}\ngood again\n")
    capsys.readouterr()
    assert finetune("task", "bad", table="bad.txt") == 2
    assert "bad.txt, line 2: begins with 'good', must begin with __label__" in capsys.readouterr().err
    assert finetune("task", "bad", "--task.name", "fastext") == 2
    assert "task.name: is 'fastext'; did you mean 'fasttext'?" in capsys.readouterr().err


def test_a_format(here, capsys):
    execute(GUESTS / "format.py")
    assert main(["export", "teacher", "npz", "--format", "npz"]) == 0
    bert, teacher = bert_jax.load("npz"), bert_jax.load("teacher")
    assert bert.head == teacher.head and bert.classify(GOOD) == teacher.classify(GOOD)
    assert_equal(bert.params, teacher.params)
    assert main(["import", "npz", "imported", "--head", "encoder"]) == 0
    assert bert_jax.load("imported").head.kind == "encoder"
    assert "# BERT" in (here / "npz/README.md").read_text()
    capsys.readouterr()
    assert main(["export", "teacher", "other", "--format", "npzz"]) == 2
    assert "format: is 'npzz'; did you mean 'npz'?" in capsys.readouterr().err


def test_plan_takes_no_accelerator_for_what_a_config_file_imports(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    said = "import os\nfrom bert_jax.config import *\nprint('on', os.environ['JAX_PLATFORMS'])\n"
    (tmp_path / "config.py").write_text(f"{said}\n\ndef get_config():\n    return PretrainConfig(seed=-1)\n")
    assert main(["plan", "--config", str(tmp_path / "config.py"), "--topology", "v5e:2x2"]) == 2
    assert "on cpu" in capsys.readouterr().out


def test_contributing_shows_what_is_tested_here():
    text = (GUESTS.parent.parent / "CONTRIBUTING.md").read_text()
    files = {file.name: file.read_text() for file in GUESTS.glob("*.py")}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= len(files) and all(any(block in file for file in files.values()) for block in blocks)
    assert all(f"tests/guests/{name}" in text for name in files)
    counts = {f"1 file, {file.count(chr(10))} lines" for file in files.values()}
    assert set(re.findall(r"\| (1 file, \d+ lines)", text)) == counts
    functions = re.findall(r"`(test_\w+)`", text)
    assert functions and all(f"def {name}(" in Path(__file__).read_text() for name in functions)
