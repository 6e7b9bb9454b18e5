"""Folders: named as people name them, for one process at a time, and whole on the disk or not there."""

import contextlib
import dataclasses
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_finetune import write_table
from test_prepare import files_of
from workdirs import write_config

from bert_jax.cli.main import main
from bert_jax.config import FinetuneConfig, HeadConfig, InputError, Phase, TaskConfig
from bert_jax.convert import pretrained
from bert_jax.convert.origin import Folder
from bert_jax.convert.pretrained import Pretrained
from bert_jax.data.prepare import prepare
from bert_jax.files import folders, storage
from bert_jax.models import init_params, make_model
from bert_jax.runs import pretraining
from bert_jax.runs.finetuning import finetune, sweep
from bert_jax.runs.pretraining import pretrain
from bert_jax.training import loop
from bert_jax.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def short(config):
    """Two steps, saved after each."""
    run = dataclasses.replace(config.run, checkpoint_every=1, evaluate_every=2)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=1)
    return dataclasses.replace(config, phases=(Phase(32, 8, 2, 5),), optimizer=optimizer, run=run)


@pytest.fixture(scope="module")
def place(short, examples, tmp_path_factory):
    """A folder with a model, a config and two tables."""
    folder = tmp_path_factory.mktemp("place")
    sizes = dataclasses.replace(short.model, vocab_size=examples.tokenizer.vocab_size)
    head = HeadConfig("masked_lm")
    params = init_params(make_model(sizes, head), 0)
    pretrained.save(Pretrained(sizes, head, examples.tokenizer, params, Folder("nowhere")), folder / "model")
    write_config(folder / "short.py", short)
    write_table(folder / "train.tsv", 16, 0)
    write_table(folder / "dev.tsv", 8, 1)
    return folder


def arguments_of(place) -> dict[str, list[str]]:
    """Each command that makes a folder, without its name."""
    config = ["--config", str(place / "short.py")]
    task = ["--task.train", str(place / "train.tsv"), "--task.dev", str(place / "dev.tsv"), "--sequence-length", "32"]
    return {
        "prepare": ["prepare", *config, "--output"],
        "pretrain": ["pretrain", *config, "--workdir"],
        "finetune": ["finetune", "--init", str(place / "model"), *task, "--epochs", "1", "--workdir"],
        "sweep": ["finetune", "--init", str(place / "model"), *task, "--seeds", "2", "--workdir"],
        "import": ["import", str(place / "model")],
        "export": ["export", str(place / "model"), "--format", "hf"],
        "evaluate": ["evaluate", "--model", str(place / "model"), *config, "--output"],
    }


COMMANDS = ("prepare", "pretrain", "finetune", "sweep", "import", "export", "evaluate")


def last_line(capsys) -> str:
    return capsys.readouterr().err.rstrip("\n").split("\n")[-1]


# ---- Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["team[1]/lr[1e-4] *?'s ä²%41#{x}\"$HOME|~", "-x/[!a", "."])
def test_a_run_lives_in_a_folder_of_any_name(name, place, examples, tmp_path, monkeypatch):
    """What glob, a shell, a URL or a parser of options would take for something else."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "team1").mkdir()  # As team[1] would match.
    command = [*arguments_of(place)["pretrain"][:-1], f"--workdir={name}", "--examples", str(examples.folder)]
    assert main(command) == 0
    shutil.rmtree(here / name / "checkpoints/2")
    assert main(command) == 0  # Resumes.
    assert Checkpoints(Path(name) / "checkpoints").steps == [1, 2]
    assert main(["predict", "fill-mask", f"--model={name}", "the [MASK] bird."]) == 0
    assert not [file for file in here.rglob("*") if file.name.startswith(".") or "partial" in file.name]


def test_a_model_goes_through_folders_of_any_name(place, examples, tmp_path, monkeypatch):
    name = "a [1]*?'s ä²%#"
    monkeypatch.chdir(tmp_path)
    commands, inside = arguments_of(place), lambda *names: "/".join(["here", name, *names])
    assert main([*commands["prepare"], inside("examples")]) == 0
    assert files_of(Path(inside("examples"))) == files_of(examples.folder)
    shutil.copytree(place / "model", inside("model"))
    assert main(["evaluate", "--model", inside("model"), *commands["evaluate"][3:], inside("scores")]) == 0
    assert "mlm_loss" in json.loads(Path(inside("scores/scores.json")).read_text())
    assert main(["finetune", "--init", inside("model"), *commands["finetune"][3:], inside("tuned")]) == 0
    assert pretrained.read(inside("tuned")).head.kind == "sequence_classification"
    for form in ("hf", "tf1"):
        assert main(["export", inside("model"), inside(f"as [{form}]"), "--format", form]) == 0
        assert main(["import", inside(f"as [{form}]"), inside(f"from [{form}]")]) == 0
        assert pretrained.read(inside(f"from [{form}]")).head.kind == "masked_lm"
        assert all(pretrained.MADE.is_in(Path(inside(made))) for made in (f"as [{form}]", f"from [{form}]"))
    assert not any(pretrained.MADE.is_in(Path(inside(other))) for other in ("tuned", "examples", "scores", "."))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'': an empty name"),
        ("a\\b", "a backslash, which TensorStore takes for a slash"),
        ("two\nlines", r"'two\nlines': '\n' is in this name"),
        ("x" * 300, "xxx...: a name of 300 bytes"),
        ("gs:", "gs:: neither a local path"),
        ("file/below", "file: is a file, where a folder is to be"),
    ],
    ids=["empty", "backslash", "newline", "long", "bucket", "file"],
)
def test_a_name_that_cannot_be_had_is_one_line_at_once(command, name, message, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    monkeypatch.setattr(loop, "train", None)
    monkeypatch.setattr(pretraining, "prepare", None)
    assert main([*arguments_of(place)[command], name]) == 2
    assert message in last_line(capsys)
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("limit", [100, 5_000, 60_000])
@pytest.mark.parametrize("form", pretrained.FORMATS)
def test_a_limit_on_the_size_of_files_is_named_whoever_writes(form, limit, place, tmp_path, capsys):
    """Python, Rust and TensorFlow each have an error of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code = main(["export", str(place / "model"), str(tmp_path / "out"), "--format", form])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert (
        last_line(capsys)
        == f"bert-jax: {tmp_path / 'out'}: File too large; raise the limit on the size of files (ulimit -f)"
    )
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\u202eb", "a\udcff", "/gs/bucket", "gs://", "s3://bucket", "/a/\x85"])
def test_names_that_no_library_takes(name):
    with pytest.raises(InputError) as error:
        storage.path(name)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("command", ["prepare", "import", "export"])
@pytest.mark.parametrize("name", [".", "..", "/", "./", "../here"])
def test_the_folder_that_one_is_in_is_not_replaced(command, name, place, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main([*arguments_of(place)[command], name, "--overwrite"]) == 2
    message = last_line(capsys)
    assert "you are in this folder" in message or "exists" in message or "holds no examples" in message
    assert here.is_dir() and not list(here.iterdir())


def test_a_digit_that_is_no_step(tmp_path):
    (tmp_path / "²").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        pretrained.read(tmp_path / "²")


def test_a_link_to_another_disk_stays(place, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for _ in range(2):
        assert main([*arguments_of(place)["export"], str(tmp_path / "out"), "--overwrite"]) == 0
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk/config.json").is_file()


# ---- One process at a time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_refused_while_another_works_there(command, place, tmp_path, capsys):
    folder = tmp_path / "run"
    with folders.exclusive(tmp_path / "run.partial" if command == "prepare" else folder):
        before = sorted(tmp_path.rglob("*"))
        assert main([*arguments_of(place)[command], str(folder)]) == 75  # It passes: schedulers try again.
        assert f"in use by process {os.getpid()} on " in last_line(capsys)
        assert sorted(tmp_path.rglob("*")) == before


# What people keep in folders, beside what these commands make.
KEPT = {
    "a run": ("metrics.jsonl", "checkpoints/0/params", "checkpoints/5/params", "tensorboard/events"),
    "a checkout": ("README.md", "tokenizer_config.json", "manifest.json", ".git/config"),
    "letters": ("letter.txt",),
    "a model": ("config.json", "model.safetensors"),
    "a file": ("",),
}


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("command", ["prepare", "import", "export"])
def test_only_what_was_made_is_overwritten(command, kept, place, tmp_path, capsys):
    folder = tmp_path / "out"
    for name in KEPT[kept]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    before = files_of(tmp_path)
    for flags, message in ([], "out: exists; "), (["--overwrite"], "isn't overwritten; remove it yourself, or choose"):
        assert main([*arguments_of(place)[command], str(folder), *flags]) == 2
        assert message in last_line(capsys)
        assert files_of(tmp_path) == before


NUMBERS = folders.Made("numbers", ((("number",), "none"),))


@pytest.mark.parametrize("replaces", [None, NUMBERS])
def test_what_comes_while_a_folder_is_made_stays(replaces, tmp_path):
    folder = tmp_path / "out"
    if replaces:
        with folders.whole_folder(folder) as aside:
            (aside / "number").write_text("1")
    with (
        pytest.raises(InputError, match="isn't overwritten" if replaces else "exists"),
        folders.whole_folder(folder, replaces),
    ):
        (folder / "letters").mkdir(parents=True)
        (folder / "letters/mine").write_text("mine")
    assert files_of(tmp_path) == {"out/letters/mine": b"mine"} | ({"out/number": b"1"} if replaces else {})
    assert os.listdir(tmp_path) == ["out"]


def test_who_begins_to_work_in_a_folder_while_it_is_made_keeps_it(tmp_path):
    folder = tmp_path / "out"
    with contextlib.ExitStack() as work, pytest.raises(folders.InUse), folders.whole_folder(folder):
        work.enter_context(folders.exclusive(folder))
    with folders.whole_folder(folder) as aside:
        (aside / "number").touch()
    with folders.whole_folder(folder, NUMBERS), pytest.raises(folders.InUse), folders.shared(folder):
        pass
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("second", [False, True])
def test_killed_while_it_replaces_a_folder(second, tmp_path):
    """Before or after the second of two renames: the folder has its old content again, or its new one."""
    folder = tmp_path / "out"
    with folders.whole_folder(folder) as aside:
        (aside / "number").write_text("1")
    code = """
import os, pathlib, sys
from bert_jax.files import folders
rename = pathlib.Path.rename
def killed(self, target):
    rename(self, target)
    if target.suffix == ".old" if sys.argv[2] == "False" else target.name == "out":
        os._exit(9)
pathlib.Path.rename = killed
with folders.whole_folder(pathlib.Path(sys.argv[1]), folders.Made("numbers", ((("number",), "none"),))) as aside:
    (aside / "number").write_text("2")
"""
    process = subprocess.run([sys.executable, "-c", code, folder, str(second)], check=False)
    assert process.returncode == 9 and len(list(tmp_path.glob(".*.old"))) == 1
    assert folder.exists() == second
    with pytest.raises(KeyError), folders.whole_folder(folder, NUMBERS):
        raise KeyError
    assert files_of(folder) == {"number": b"2" if second else b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_runs_hold_their_folders(short, place, examples, tmp_path, monkeypatch):
    """The workdir and the examples of pretraining, a sweep's folder and the run's in it; until they end."""
    seen = []

    def train(training, workdir, *_):
        held = [workdir, *([examples.folder] if training.name == "pretrain" else [workdir.parent])]
        for folder in held:
            with pytest.raises(folders.InUse), folders.exclusive(folder):
                pass
        with pytest.raises(InputError, match="in use by"):
            prepare(short, examples.folder, overwrite=True)
        (workdir / "metrics.jsonl").touch()
        seen.append(training.name)
        return loop.Result(1, {"dev_accuracy": 1.0}, None)

    monkeypatch.setattr(loop, "train", train)
    for name in ("plot_pretraining", "_report"):
        monkeypatch.setattr(pretraining, name, lambda *_: None)
    monkeypatch.setattr("bert_jax.runs.finetuning.plot_finetuning", lambda *_: None)
    pretrain(short, tmp_path / "run", examples.folder)
    task = TaskConfig(train=str(place / "train.tsv"), dev=str(place / "dev.tsv"))
    config = FinetuneConfig(task=task, sequence_length=32)
    with folders.shared(examples.folder):
        sweep(config, place / "model", tmp_path / "sweep", 2, ())
    with folders.shared(examples.folder), folders.exclusive(tmp_path):
        finetune(config, place / "model", tmp_path / "tuned")
    assert seen == ["pretrain", "finetune", "finetune", "finetune"]
    for folder in (tmp_path / "run", tmp_path / "sweep", examples.folder):
        with folders.exclusive(folder):
            pass


# ---- Whole on the disk, or not there --------------------------------------------------------------------------------


@pytest.fixture
def order(monkeypatch):
    """What was synced, and renamed, in this order: inodes and names."""
    events = []
    fsync, replace, rename = os.fsync, os.replace, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(("sync", os.fstat(file).st_ino)), fsync(file))[1])

    def renamed(function):
        def call(source, target, *arguments, **named):
            events.append(("rename", os.stat(source).st_ino, Path(target).name))
            return function(source, target, *arguments, **named)

        return call

    monkeypatch.setattr(os, "replace", renamed(replace))
    monkeypatch.setattr(os, "rename", renamed(rename))
    return events


def test_a_file_is_on_the_disk_before_it_has_its_name(order, tmp_path):
    storage.write_whole(tmp_path / "file", b"content")
    inode, folder = ((path).stat().st_ino for path in (tmp_path / "file", tmp_path))
    assert order == [("sync", inode), ("rename", inode, "file"), ("sync", folder)]


@pytest.mark.parametrize("command", ["prepare", "import", "export"])
def test_a_folder_is_on_the_disk_before_it_has_its_name(command, order, place, tmp_path):
    out = tmp_path / "out"
    assert main([*arguments_of(place)[command], str(out)]) == 0
    at = next(i for i, event in enumerate(order) if event[0] == "rename" and event[2] == "out")
    synced = {inode for kind, inode, *_ in order[:at] if kind == "sync"}
    assert {path.stat().st_ino for path in (out, *out.rglob("*"))} <= synced
    assert ("sync", tmp_path.stat().st_ino) in order[at:]


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(command, order, place, examples, tmp_path):
    """So are the names of all folders above it; the older checkpoints are removed later."""
    more = ["--examples", str(examples.folder)] if command == "pretrain" else []
    assert main([*arguments_of(place)[command], str(tmp_path / "runs/out"), *more]) == 0
    checkpoints = tmp_path / "runs/out/checkpoints"
    last = checkpoints / str(Checkpoints(checkpoints).latest)
    at = next(i for i, event in enumerate(order) if event[0] == "rename" and event[2] == last.name)
    synced = {inode for kind, inode, *_ in order[:at] if kind == "sync"}
    saved = {path for path in last.rglob("*") if "metrics" not in path.relative_to(last).parts}  # Scores come later.
    assert {path.stat().st_ino for path in (last, *saved)} <= synced
    assert order[at + 1] == ("sync", checkpoints.stat().st_ino)
    everything = {event[1] for event in order if event[0] == "sync"}
    assert {folder.stat().st_ino for folder in (tmp_path, tmp_path / "runs", tmp_path / "runs/out", last)} <= everything


def test_what_a_killed_export_left_is_removed_and_what_lives_is_not(place, tmp_path):
    left, alive = tmp_path / ".0123456789abcdef.partial", tmp_path / ".fedcba9876543210.partial"
    left.mkdir()
    (left / "weights").write_bytes(b"0" * 1000)
    with folders.exclusive(alive):
        assert main([*arguments_of(place)["export"], str(tmp_path / "out")]) == 0
        assert sorted(file.name for file in tmp_path.iterdir()) == [alive.name, "out"]


def test_numbers_of_one_array_whatever_the_folder_is_called(tmp_path):
    import jax

    from bert_jax.training.checkpoints import Checkpoints

    folder = tmp_path / "a[1]*?"
    (tmp_path / "a1x").mkdir()
    checkpoints = Checkpoints(folder / "checkpoints", writing=True)
    checkpoints.save(3, {"params": {"w": jax.numpy.arange(5.0)}}, {}, {})
    checkpoints.close()
    like = jax.ShapeDtypeStruct((5,), np.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    found = Checkpoints(folder / "checkpoints").restore(3, {"params": {"w": like}})
    assert found["params"]["w"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("within", [folders.exclusive, folders.whole_folder])
def test_a_disk_that_is_full_is_named(within, tmp_path):
    with pytest.raises(OSError, match="No space left on device: '.*/there'"), within(tmp_path / "there"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
