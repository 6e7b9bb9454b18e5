"""Names out of files, and links that somebody laid, lead nowhere else."""

import json
import os
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from test_prepare import files_of

from bert_jax.config import InputError
from bert_jax.convert import pretrained, tf1, weight_files
from bert_jax.data.prepare import prepare
from bert_jax.data.records import Examples
from bert_jax.files import contents, folders, storage
from bert_jax.training import metrics, plot

# ---- Names out of files ---------------------------------------------------------------------------------------------

ESCAPES = ["../x", "/etc/passwd", "..", "a/../../x", "a\\..\\x", "", ".", "a\nb", "a\x1b[2J", "x" * 256, None, 3, ["a"]]


@pytest.mark.parametrize("name", ESCAPES, ids=repr)
def test_a_name_out_of_a_file_leads_nowhere_else(name, tmp_path):
    with pytest.raises(contents.NotTheFile, match="must be a plain name") as error:
        contents.plain_name(name, tmp_path / "index.json")
    assert str(error.value).isprintable()


def test_every_file_that_names_others_goes_by_it(config, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(InputError, match=r"index\.json: names '../model.safetensors'"):
        weight_files.weight_files(tmp_path)
    index.unlink()
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "Transformer", "path": "../other"}]))
    with pytest.raises(InputError, match=r"modules\.json: names '../other'"):
        pretrained.read(tmp_path)
    for number in (1, 2):
        (tmp_path / f"model.ckpt-{number}.index").write_text("")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/.."\n')
    with pytest.raises(InputError, match=r"checkpoint: names '..'"):
        tf1.find(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/where/it/ran/model.ckpt-1"\n')
    assert tf1.find(tmp_path) == tmp_path / "model.ckpt-1"
    folder = prepare(config, tmp_path / "examples").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"]
    shards = manifest["lengths"]["32"]["train"]
    manifest["lengths"]["32"] |= {"../../x": [shards[0]]}  # Isn't a split, and nobody goes there.
    (folder / "manifest.json").write_text(json.dumps(manifest))
    Examples(folder).check_files([32])
    shards[0]["name"] = "../../../x"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for use in (lambda examples: examples.check_files([32]), lambda examples: examples.split("train", 32)):
        with pytest.raises(InputError, match=r"manifest\.json: names '../../../x'"):
            use(Examples(folder))


# ---- Links that somebody laid ---------------------------------------------------------------------------------------


def test_names_that_can_be_guessed_are_not_followed(config, tmp_path, capsys):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (tmp_path / "metrics.jsonl.partial").symlink_to(precious / "file")
    storage.write_whole(tmp_path / "metrics.jsonl", b"rows")
    (tmp_path / "out.partial").symlink_to(precious)
    with pytest.raises(InputError, match=r"out\.partial: a link to .*precious, which isn't followed"):
        prepare(config, tmp_path / "out")
    (tmp_path / "out.partial").unlink()
    (tmp_path / "out.old").symlink_to(precious)
    for _ in range(2):
        prepare(config, tmp_path / "out", overwrite=True)
    assert files_of(precious) == {"file": b"mine"} and (tmp_path / "out.old").is_symlink()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(precious / "file")
    with pytest.raises(OSError, match="symbolic link"), folders.exclusive(tmp_path / "run"):
        pass
    assert files_of(precious) == {"file": b"mine"}


@pytest.mark.parametrize("name", ["32", "32/train/00000.records", "progress/lines.hashes", "job.json"])
def test_no_link_in_a_folder_that_was_begun_is_followed(name, config, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("mine")
    link = tmp_path / "out.partial" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / ("precious" if name == "32" else "precious/file"))
    with pytest.raises(InputError, match=rf"{name}: a link to .*/precious.*, which isn't followed; remove it"):
        prepare(config, tmp_path / "out")
    assert files_of(tmp_path / "precious") == {"file": b"mine"}


@pytest.mark.parametrize("lay", [Path.symlink_to, Path.hardlink_to])
def test_new_files_take_the_place_of_links(lay, tmp_path):
    precious, file = tmp_path / "precious", tmp_path / "file"
    precious.write_text("mine")

    def writes() -> None:
        with storage.new_file(file) as stream:
            stream.write(b"new")

    for write in (writes, lambda: storage.write_whole(file, b"new"), lambda: plot._save(Figure(), file)):
        file.unlink(missing_ok=True)
        lay(file, precious)
        write()
        assert precious.read_text() == "mine" and not file.is_symlink()


def test_what_a_run_writes_is_written_whole():
    """Through `storage`, which follows no link and leaves nothing half written."""
    package = Path(folders.__file__).parent.parent
    for file in (file for name in ("tasks", "training", "inference", "runs") for file in (package / name).glob("*.py")):
        assert not re.search(r"\.write_(text|bytes)\(|open\(.*[\"'][wx]", file.read_text()), file


def test_a_folder_for_tensorboard_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tensorboard").symlink_to(tmp_path)
    with pytest.raises(InputError, match="run/tensorboard: a link to .*, which isn't followed"):
        metrics.Metrics(tmp_path / "run", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_what_another_user_began_is_not_gone_on_with(config, tmp_path):
    (tmp_path / "out.partial").mkdir()
    os.chown(tmp_path / "out.partial", 65534, 65534)
    with pytest.raises(InputError, match=r"out\.partial: belongs to another user"):
        prepare(config, tmp_path / "out")
