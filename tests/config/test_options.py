"""Which fields of the config are options of which command: each is read somewhere, or is no option."""

import dataclasses
import re
from pathlib import Path

import pytest

from bert_jax.cli import bench, evaluate, finetune
from bert_jax.cli.main import main
from bert_jax.config import FinetuneConfig, PretrainConfig

PACKAGE = Path(__file__).parents[2] / "bert_jax"

MESH = dict.fromkeys(["mesh.data", "mesh.fsdp", "mesh.tensor"], "devices/sharding.py")
# Each with the file or folder that reads it.
TASK = {
    **dict.fromkeys([f"task.{name}" for name in ("name", "folder", "data_dir", "dev", "test", "labels")], "tasks"),
    **dict.fromkeys([f"task.{kind}_column" for kind in ("text", "pair", "label", "id")], "tasks"),
    **dict.fromkeys([f"task.{name}" for name in ("query_length", "stride", "n_best", "answer_length")], "tasks"),
    **dict.fromkeys(["task.unanswerable", "task.null_threshold", "task.document_context"], "tasks"),
    "task.label_separator": "tasks",
}
FINETUNE = {
    **TASK,
    **MESH,
    "task.train": "tasks",
    **dict.fromkeys(["seed", "sequence_length", "batch_size", "evaluation_batch_size", "epochs"], "runs/finetuning.py"),
    **dict.fromkeys(
        ["warmup", "dtype", "dropout", "objective", "task.train_examples", "run.accumulate_steps"], "runs/finetuning.py"
    ),
    **dict.fromkeys([f"optimizer.{n}" for n in ("b1", "b2", "eps", "weight_decay")], "training/optimizers.py"),
    "optimizer.bias_correction": "training/optimizers.py",
    **dict.fromkeys([f"optimizer.{n}" for n in ("name", "learning_rate", "schedule")], "training/optimizer.py"),
    **dict.fromkeys(["optimizer.decay", "optimizer.clip_norm"], "training/optimizer.py"),
    **dict.fromkeys(["run.log_every", "run.max_skipped_updates"], "training/loop.py"),
    **dict.fromkeys(["run.keep_last", "run.keep_best"], "training/checkpoints.py"),
    "run.compilation_cache": "devices/compiling.py",
}
EVALUATE_TASK = {
    **TASK,
    **MESH,
    **dict.fromkeys(["sequence_length", "dtype"], "runs/evaluation.py"),
    "evaluation_batch_size": "runs/finetuning.py",
    "run.compilation_cache": "devices/compiling.py",
}
CORPUS = ("source", "files", "dataset", "split", "text_field", "data_dir", "clean", "deduplicate")
EXAMPLES = ("format", "short_sequence_probability", "word_segmenter", "dupe_factor")
EVALUATE_TEXT = {
    **MESH,
    **dict.fromkeys(["seed", "run.evaluation_batches", "run.workers"], "data"),
    **dict.fromkeys([f"corpus.{name}" for name in CORPUS], "data"),
    **dict.fromkeys([f"examples.{name}" for name in EXAMPLES], "data"),
    **dict.fromkeys([f"masking.{name}" for name in ("evaluation_rate", "whole_word", "random_tokens")], "data"),
    **dict.fromkeys([f"phases.0.{name}" for name in ("sequence_length", "batch_size", "max_predictions")], "data"),
    "run.compilation_cache": "devices/compiling.py",
}
COMMANDS = {
    "finetune": (["finetune"], FinetuneConfig(), FINETUNE, finetune.Finetune.UNREAD),
    "bench finetune": (["bench", "finetune"], FinetuneConfig(), FINETUNE, bench.BenchFinetune.UNREAD),
    "evaluate a task": (["evaluate"], FinetuneConfig(), EVALUATE_TASK, evaluate.EvaluateTask.UNREAD),
    "evaluate on text": (
        ["evaluate", "--config", "pretrain_base"],
        PretrainConfig(),
        EVALUATE_TEXT,
        evaluate.EvaluateText.UNREAD,
    ),
}


def paths(config, where: str = "") -> list[str]:
    """Of all fields."""
    found = []
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), where + field.name
        if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            value, path = value[0], f"{path}.0"
        found += paths(value, f"{path}.") if dataclasses.is_dataclass(value) else [path]
    return found


def options_of(command: list[str], capsys) -> set[str]:
    """What its help lists."""
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return set(re.findall(r"^\W*--([a-z0-9.-]+)", capsys.readouterr().out, re.MULTILINE))


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Help in one column."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_field_is_read_or_is_no_option(name, capsys):
    command, config, read, unread = COMMANDS[name]
    fields = {path: any(path == other or path.startswith(f"{other}.") for other in unread) for path in paths(config)}
    assert set(read) == {path for path, is_unread in fields.items() if not is_unread}
    for path, place in read.items():
        files = (PACKAGE / place).glob("*.py") if (PACKAGE / place).is_dir() else [PACKAGE / place]
        name = re.compile(rf"[.\"']{path.rpartition('.')[2]}\b")
        assert any(name.search(file.read_text()) for file in files), (path, place)
    listed = options_of(command, capsys)
    options = {path.replace("_", "-") for path in fields}
    assert listed & options == {path.replace("_", "-") for path in read}


# The whole run's config is checked before anything is prepared or planned: its options can be the same for all three.
@pytest.mark.parametrize("command", ["prepare", "pretrain", "plan"])
def test_commands_of_a_pretraining_run_take_all_of_its_options(command, capsys):
    listed = options_of([command, "--config", "pretrain_tiny"], capsys)
    assert {path.replace("_", "-") for path in paths(PretrainConfig())} <= listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run.evaluate-every", "5"], "--run.evaluate-every"),
        (["--optimizer.warmup-steps", "5"], "--optimizer.warmup-steps"),
        (["--task", "rte"], "--task rte: chooses among a config's tasks, but there is no --config"),
        (["--task", "x", "--config", "{}/plain.py"], "plain.py: its get_config() has no choice of task; leave out"),
        (["--config", "{}/often.py"], "often.py: run.evaluate_every is 5, but fine-tuning evaluates after each epoch"),
    ],
)
def test_options_that_would_say_nothing_are_refused(tmp_path, capsys, arguments, message):
    head = "from bert_jax.config import *\n\n\ndef get_config():\n    return FinetuneConfig("
    (tmp_path / "plain.py").write_text(f"{head})\n")
    (tmp_path / "often.py").write_text(f"{head}run=RunConfig(evaluate_every=5))\n")
    try:
        code = main(["finetune", "--init", "m", "--workdir", "w", *(a.format(tmp_path) for a in arguments)])
    except SystemExit as end:
        code = end.code
    assert code == 2 and message in capsys.readouterr().err


def test_evaluate_refuses_a_task_of_no_config(capsys):
    assert main(["evaluate", "--model", "m", "--task", "rte"]) == 2
    assert "there is no --config" in capsys.readouterr().err
