"""Folders on gs://, with a server of Google Cloud Storage's API: the same bytes and the same weights as on a disk."""

import dataclasses
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gcs_server
import numpy as np
import pytest
from gcsfs import retry
from google.auth import exceptions as google_errors
from google.protobuf.message import DecodeError
from requests.exceptions import ProxyError
from test_prepare import files_of, long_corpus, prepare_command
from test_training import assert_same_state, saved_state

from bert_jax.cli.main import main
from bert_jax.config import CorpusConfig, FinetuneConfig, InputError, Phase, TaskConfig
from bert_jax.data import corpora, resuming
from bert_jax.data import prepare as preparing
from bert_jax.data.prepare import prepare
from bert_jax.data.records import Examples
from bert_jax.files import folders, storage
from bert_jax.files.errors import TryAgain
from bert_jax.runs.pretraining import pretrain
from bert_jax.training import metrics
from bert_jax.training.checkpoints import Checkpoints


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
    often = ["--run.checkpoint-every", "2"]
    process = subprocess.Popen([sys.executable, "-m", "bert_jax", *command, *often], stderr=subprocess.DEVNULL)
    while not Checkpoints(workdir / "checkpoints").steps:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert Checkpoints(workdir / "checkpoints").latest < 30
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
    assert capsys.readouterr().out.count('"token"') == 5
    shorter = dataclasses.replace(config, phases=(Phase(32, 8, 12, 5),))
    pretrain(shorter, bucket / "next", prepared, init=workdir / "checkpoints" / "30", profile=True)
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
    os.utime(tmp_path / "a.txt", (1, 1))  # Another file, for all that is known before its text is read.
    subprocess.run(prepare_command(output, *flags), check=True, capture_output=True)
    assert objects_of(output) == files_of(tmp_path / "whole")
    assert server.buckets["bucket"]["here/killed/64/train/00000.records"]["generation"] == made


def test_what_is_there_is_overwritten_only_when_asked(bucket, objects_of, config, examples):
    output = bucket / "examples"
    prepare(config, output)
    other = dataclasses.replace(config, seed=1)
    with pytest.raises(InputError, match="gs://bucket/here/examples: exists; choose another folder"):
        prepare(other, output)
    with pytest.raises(InputError, match="not a folder of examples alone .it holds examples., so it isn't overwritten"):
        prepare(other, bucket, overwrite=True)
    prepare(other, output, overwrite=True)
    assert objects_of(output).keys() == files_of(examples.folder).keys()
    assert json.loads(objects_of(output)["manifest.json"])["config"]["seed"] == 1
    (output / "manifest.json").unlink()
    resuming.write_job(output, resuming.job_of(other))  # As a run leaves it that was killed.
    with pytest.raises(InputError, match="seed was 1 in the run that was stopped there, is 0 now"):
        prepare(config, output)
    resuming.write_job(output, {})  # As one that was killed while it emptied the folder.
    prepare(config, output)
    assert objects_of(output) == files_of(examples.folder)


def test_one_process_at_a_time(bucket, objects_of, config, examples, monkeypatch, capsys):
    for name, seconds in {"RENEW": 0.2, "STALE": 3.0, "SETTLE": 0.2, "LOOK": 0.2}.items():
        monkeypatch.setattr(folders, name, seconds)
    here = f"in use by process {os.getpid()} on "
    with folders.exclusive(bucket / "run"), folders.exclusive(bucket / "examples"):
        with pytest.raises(InputError, match=here):
            pretrain(config, bucket / "run", examples.folder)
        with pytest.raises(InputError, match=here):
            prepare(config, bucket / "examples")
        assert objects_of(bucket).keys() == {"run/.lock", "examples/.lock"}
    assert not objects_of(bucket)
    lost = dataclasses.replace(folders.Holder.this(), machine="another-1", host="another")
    (bucket / "run/.lock").write_bytes(lost.text())  # As a host leaves it that was taken away.
    with folders.exclusive(bucket / "run"):
        assert "waits to see whether" in capsys.readouterr().err
    assert not objects_of(bucket)


def test_beam_and_repeated_lines(bucket, objects_of, config, tmp_path, monkeypatch):
    from bert_jax.data.beam import BeamEngine

    monkeypatch.setattr(corpora, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(preparing, "CHUNKS_A_SHARD", (2, 2))
    config = dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, deduplicate=True))
    expected = files_of(prepare(config, tmp_path / "local").folder)
    assert len(expected) > 6
    prepare(config, bucket / "ours")
    prepare(config, bucket / "beam", engine=BeamEngine(["--runner=DirectRunner"]))
    assert objects_of(bucket / "ours") == objects_of(bucket / "beam") == expected


def test_examples_are_copied_once_and_again_where_they_are_damaged(bucket, server, config, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prepare(config, bucket / "examples")
    examples = Examples(bucket / "examples")
    expected = len(examples.split("train", 32).read(np.arange(5)))
    (shard,) = examples.local.glob("32/train/*.records")
    copied, whole = shard.stat().st_mtime_ns, shard.read_bytes()
    Examples(bucket / "examples").check_files([32])
    assert shard.stat().st_mtime_ns == copied
    shard.write_bytes(whole[:-1])
    assert len(Examples(bucket / "examples").split("train", 32).read(np.arange(5))) == expected
    assert shard.read_bytes() == whole
    shard.unlink()
    server.put("bucket", "here/examples/32/train/00000.records", whole[:-1] + b"?")
    with pytest.raises(InputError, match=r"gs://bucket/here/examples/32/train/00000.records: damaged"):
        Examples(bucket / "examples").check_files([32])
    assert not list(examples.local.glob("32/train/*"))
    monkeypatch.setattr(storage, "download", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(InputError, match="no space left; set XDG_CACHE_HOME"):
        Examples(bucket / "examples").check_files([32])


def test_a_large_object_is_uploaded_in_parts(bucket, tmp_path):
    content = np.random.default_rng(0).bytes(12_345_678)
    storage.upload(io.BytesIO(content), bucket / "large")
    storage.download(bucket / "large", tmp_path / "large")
    assert (tmp_path / "large").read_bytes() == content


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("gs://nobucket/x", "gs://nobucket: no such bucket"),
        ("gs://forbidden/x", "gs://forbidden: permission denied (Forbidden: b/forbidden/o it does not have"),
        ("gs://login/x", "not logged in (Anonymous caller, 401); log in with gcloud auth"),
        ("s3://bucket/x", "s3://bucket/x: neither a local path nor one that begins with gs://"),
        ("gs://", "gs://: names no bucket"),
    ],
)
def test_a_bucket_that_cannot_be_had_is_one_line(server, config, tmp_path, capsys, folder, message):
    file = str(config_file(config, tmp_path))
    for arguments in (
        ["prepare", "--config", file, "--output", folder],
        ["pretrain", "--config", file, "--workdir", folder],
        ["pretrain", "--config", file, "--workdir", str(tmp_path / "w"), "--examples", folder],
        ["pretrain", "--config", file, "--workdir", str(tmp_path / "w"), "--init", folder],
        ["predict", "fill-mask", "--model", folder, "a [MASK]"],
    ):
        code, error = main(arguments), capsys.readouterr().err
        last = error.rstrip("\n").split("\n")[-1]
        assert code == 2 and last.startswith("bert-jax: ") and "Traceback" not in error
        # To those who read, a bucket that isn't there is a folder that holds nothing.
        assert message in last or ("nobucket" in folder and f"{folder}: holds no" in last)
    assert not (tmp_path / "w").exists()


def code_of(code) -> Exception:
    return retry.HttpError({"code": code, "message": "why"})


def from_transport() -> Exception:
    error = google_errors.RefreshError("no answer")
    error.__cause__ = google_errors.TransportError("no answer")
    return error


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        *((code_of(code), 75) for code in (429, 408, 500, "503")),
        *((code_of(code), 2) for code in (400, 401, 403, 409, "412")),
        (ProxyError(), 75),  # As gcsfs says 502.
        (ValueError("UNAVAILABLE: Error opening b/x: connection refused"), 75),
        (google_errors.TransportError("metadata.google.internal: no answer"), 75),
        (from_transport(), 75),
        (google_errors.DefaultCredentialsError("none"), 2),
        (FileNotFoundError("b/bucket/o/x"), 2),
    ],
)
def test_what_passes_by_itself_is_tried_again(error, exit_code):
    with pytest.raises(InputError) as found, storage.errors_in_one_line():
        raise error
    assert found.value.exit_code == exit_code and type(found.value) is (TryAgain if exit_code == 75 else InputError)
    assert ("the same command goes on" in str(found.value)) == (exit_code == 75)


def test_an_error_of_no_bucket_is_left_alone():
    assert storage.problem(DecodeError("Error parsing message")) is None


def test_without_the_packages_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"buckets need the package gcsfs; pip install 'bert-jax\[gs\]'"):
        storage.path("gs://bucket/here")


def test_files_to_read_are_copied_first(config):
    for changes in (
        {"corpus": CorpusConfig(source="text", files=("gs://bucket/a.txt",))},
        {"tokenizer": dataclasses.replace(config.tokenizer, path="gs://bucket/vocab.txt")},
    ):
        with pytest.raises(InputError, match="isn't on this machine; copy it here first"):
            dataclasses.replace(config, **changes).validate()
    with pytest.raises(InputError, match="task.folder: gs://bucket/RTE isn't on this machine; copy it here first"):
        FinetuneConfig(task=TaskConfig(name="rte", folder="gs://bucket/RTE")).validate()


def test_tensorflow_is_not_imported_for_a_bucket(bucket):
    code = f"import sys; from bert_jax.files import storage; storage.path('{bucket}').exists(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "gcsfs" in modules and not {"tensorflow", "jax"} & set(modules)
