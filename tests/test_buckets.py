"""Folders on gs://, with a server of Google Cloud Storage's API: the same bytes and the same weights as on a disk."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gcs_server
import pytest
from conftest import small_config
from test_prepare import files_of, long_corpus, prepare_command
from test_training import assert_same_state, saved_state

import bert_jax
from bert_jax import storage
from bert_jax.cli import main
from bert_jax.config import CorpusConfig, InputError
from bert_jax.data import corpora
from bert_jax.data import prepare as preparing
from bert_jax.data.prepare import prepare
from bert_jax.data.records import Examples
from bert_jax.pretrain import pretrain
from bert_jax.training import metrics


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with one bucket, for this process and those that it starts."""
    with gcs_server.Server("bucket") as server, pytest.MonkeyPatch.context() as environment:
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            environment.setenv(name, server.url)
        environment.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "anyone")  # TensorStore's.
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield server


@pytest.fixture
def bucket(server):
    server.buckets["bucket"].clear()
    return storage.path("gs://bucket/here")


@pytest.fixture
def objects_of(server):
    def objects_of(folder) -> dict[str, bytes]:
        root = str(folder).removeprefix("gs://bucket/") + "/"
        objects = server.buckets["bucket"].items()
        return {name.removeprefix(root): there["content"] for name, there in objects if name.startswith(root)}

    return objects_of


def config_file(config, folder: Path) -> Path:
    file = folder / "small.py"
    file.write_text(f"from bert_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n")
    return file


def test_from_text_to_filled_masks_and_killed_in_between(bucket, objects_of, config, examples, tmp_path, capsys):
    file, workdir, prepared = config_file(config, tmp_path), bucket / "run", bucket / "examples"
    assert main(["prepare", "--config", str(file), "--output", str(prepared)]) == 0
    assert objects_of(prepared) == files_of(examples.folder)
    command = ["pretrain", "--config", str(file), "--workdir", str(workdir), "--examples", str(prepared)]
    process = subprocess.Popen([sys.executable, "-m", "bert_jax", *command], stderr=subprocess.DEVNULL)
    while not bert_jax.training.checkpoints.Checkpoints(workdir / "checkpoints").steps:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert bert_jax.training.checkpoints.Checkpoints(workdir / "checkpoints").latest < 30
    assert main(command) == 0
    pretrain(config, tmp_path / "local", examples.folder)
    assert_same_state(saved_state(workdir, 30), saved_state(tmp_path / "local", 30))
    rows, expected = (metrics.read(folder / "metrics.jsonl") for folder in (workdir, tmp_path / "local"))
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    there = objects_of(workdir)
    assert there["loss.png"].startswith(b"\x89PNG") and any(name.startswith("tensorboard/events") for name in there)
    capsys.readouterr()
    assert main(["predict", "fill-mask", "--model", str(workdir), "The [MASK] watches a bird."]) == 0
    assert capsys.readouterr().out.count("%") == 5
    result = pretrain(config, bucket / "next", prepared, init=workdir / "checkpoints" / "30", profile=True)
    assert result.step == 30
    assert any(name.endswith(".xplane.pb") for name in objects_of(bucket / "next"))


def test_a_prepare_that_was_killed_goes_on_to_the_same_bytes(server, bucket, objects_of, tmp_path):
    flags = long_corpus(tmp_path)
    subprocess.run(prepare_command(tmp_path / "whole", *flags), check=True, capture_output=True)
    output = bucket / "killed"
    process = subprocess.Popen(prepare_command(output, *flags), stderr=subprocess.DEVNULL, start_new_session=True)
    while not list((output / "progress").glob("*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(InputError, match="holds no examples"):
        Examples(output)
    made = server.buckets["bucket"]["here/killed/64/train/00000.records"]["generation"]
    subprocess.run(prepare_command(output, *flags), check=True, capture_output=True)
    assert objects_of(output) == files_of(tmp_path / "whole")
    assert server.buckets["bucket"]["here/killed/64/train/00000.records"]["generation"] == made
