"""Files that ask for too much, hold numbers that are none, or values that no reader expects; one test for each kind."""

import dataclasses
import io
import json
import os
import shutil
import time
import zipfile

import numpy as np
import pytest
import torch
from hf_folders import edit_config, make_folder
from readers import build

import bert_jax
from bert_jax.cluster import secret
from bert_jax.config import InputError, ModelConfig, TokenizerConfig
from bert_jax.convert import pretrained
from bert_jax.data import leftovers, tokenizers
from bert_jax.data.prepare import prepare
from bert_jax.files import contents
from bert_jax.files.printable import printable
from bert_jax.inference import prediction
from bert_jax.runs import finetuning
from bert_jax.runs.pretraining import pretrain
from bert_jax.training import metrics
from bert_jax.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    build(folder)
    return folder


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "files")


# ---- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1', "Expecting"),
        ('{"a": NaN}', "NaN isn't a finite number"),
        ("[-Infinity]", "-Infinity isn't"),
        ("1e999", "1e999 isn't"),
        ("[" * 101 + "]" * 101, "more than 100 lists and objects"),
        ('{"a":' * 100_000, "more than 100"),
        ("1" * 5000, "4300 digits"),
        (r'"\ud800"', "half a character"),
        (b"\xff", "utf-8"),
        ("[1]".encode("utf-16"), "utf-8"),
    ],
)
def test_json_that_is_refused(text, problem):
    with pytest.raises(ValueError, match=problem):
        contents.json_value(text)


def test_json_that_is_read():
    assert contents.json_value(b'\xef\xbb\xbf{"a": 1, "a": [2.5, "\\ud83d\\ude00"]}') == {"a": [2.5, "😀"]}
    assert contents.json_value("[" * 100 + "]" * 100)
    assert np.isnan(contents.json_value("[NaN]", nan=True)[0])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InputError, match="a device or a pipe"):
        contents.json_object(tmp_path / "config.json")


@pytest.mark.parametrize(
    "name", ["0/_CHECKPOINT_METADATA", "0/state/_METADATA", "0/state/manifest.ocdbt", "0/metrics/metrics", "new"]
)
def test_a_pipe_in_a_checkpoint_is_not_waited_for(root, name):
    file = root / "imported/checkpoints" / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    (file.parent / "circle").symlink_to(file.parent)
    with pytest.raises(InputError, match=f"{file}: a device or a pipe, must be a file"):
        pretrained.read(root / "imported")


@pytest.mark.parametrize(
    "read",
    [
        metrics.read,
        leftovers.read,
        lambda file: leftovers.read_if_whole(file, list),
        lambda file: secret.known(file.parent),
    ],
)
def test_a_pipe_that_a_run_finds_is_not_waited_for(tmp_path, read, monkeypatch):
    monkeypatch.delenv(secret.SECRET, raising=False)
    os.mkfifo(tmp_path / secret.FILE)
    with pytest.raises(InputError, match="a device or a pipe, must be a file"):
        read(tmp_path / secret.FILE)


def test_larger_files_are_not_taken_into_memory(tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        file.write(b"{")
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="larger than"):
        contents.json_object(tmp_path / "config.json")


def test_a_small_file_takes_no_room_for_the_largest():
    class Stream(io.BytesIO):
        def read(self, size):
            assert size <= 1 << 20
            return super().read(size)

    assert contents.read_whole(Stream(b"ab"), 2) == b"ab" and contents.read_whole(Stream(b"abc"), 2) is None
    large = bytes(3 << 20)
    assert contents.read_whole(Stream(large), contents.MOST_JSON) == large


def test_an_error_is_one_line_whatever_it_quotes():
    assert str(InputError("x\n\x1b[2Jy\u202e\ud800")) == r"x\n\x1b[2Jy\u202e\ud800"
    assert printable("naïve 狗") == "naïve 狗"


# ---- Numbers that are none ------------------------------------------------------------------------------------------


def spoilt(params: dict, value: float) -> dict:
    """The parameters with one number of the word embeddings changed."""
    bert = params["bert"]
    words = np.array(bert["embeddings"]["word_embeddings"]["embedding"])
    words[3, 5] = value
    return params | {"bert": bert | {"embeddings": bert["embeddings"] | {"word_embeddings": {"embedding": words}}}}


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("form", ["hf", "tf1", "torch", "msgpack", "ours"])
def test_weights_are_finite_or_the_array_is_named(whole, tmp_path, form, value):
    from safetensors.numpy import load_file

    found = pretrained.read(whole / "hf")
    found = dataclasses.replace(found, params=spoilt(found.params, value))
    folder = tmp_path / "model"
    if form == "ours":
        pretrained.save(found, folder)
    else:
        pretrained.export(found, folder, "tf1" if form == "tf1" else "hf")
    if form in ("torch", "msgpack"):
        import flax.serialization

        arrays = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        if form == "torch":
            torch.save({name: torch.tensor(a) for name, a in arrays.items()}, folder / "pytorch_model.bin")
        else:
            (folder / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(arrays))
    with pytest.raises(InputError, match="bert/embeddings/word_embeddings/embedding has numbers that aren't finite"):
        pretrained.read(folder)


def test_pretraining_does_not_start_from_them(whole, tmp_path, config, examples):
    """The arrays of a checkpoint are then read by another way, each onto its devices."""
    run = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, warmup_steps=0))
    run = dataclasses.replace(run, phases=(dataclasses.replace(config.phases[0], steps=1),))
    pretrain(run, tmp_path / "first", examples.folder)
    found = pretrained.read(tmp_path / "first")
    pretrained.save(dataclasses.replace(found, params=spoilt(found.params, np.nan)), tmp_path / "spoilt")
    with pytest.raises(InputError, match="word_embeddings/embedding has numbers that aren't finite"):
        pretrain(run, tmp_path / "second", examples.folder, init=tmp_path / "spoilt")


def test_predictions_that_overflow_are_an_error_and_no_nan(whole):
    found = pretrained.read(whole / "source")
    params = dict(found.params)
    params["cls"] = pretrained.jax.tree.map(lambda x: np.full_like(x, 1e38), dict(params["cls"]))
    bert = bert_jax.Bert(dataclasses.replace(found, params=params))
    with pytest.raises(InputError, match="'the .MASK.': what the model computes overflows"):
        list(prediction.fill_mask(bert, 2)(["the [MASK]"]))
    params = dict(found.params, bert=pretrained.jax.tree.map(lambda x: np.full_like(x, 1e38), found.params["bert"]))
    bert = bert_jax.Bert(dataclasses.replace(found, params=params))
    with pytest.raises(InputError, match="overflows"):
        list(prediction.embed(bert)(["the dog"]))


# ---- More than there is ---------------------------------------------------------------------------------------------

CLAIMS = {
    "num_hidden_layers": (10**9, 4096, 1e9, 10**400),
    "vocab_size": (10**12, 1 << 24),
    "hidden_size": (10**9, 1 << 16),
    "intermediate_size": (10**9, 1 << 18),
    "max_position_embeddings": (10**9, 1 << 20),
    "type_vocab_size": (10**9, -1),
    "num_attention_heads": (10**9, 0),
}


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize("folder", ["hf", "tf1"])
def test_sizes_that_a_config_claims_are_held_against_the_files(root, folder, allow_missing):
    file = root / folder / ("config.json" if folder == "hf" else "bert_config.json")
    whole = json.loads(file.read_text())
    start = time.monotonic()
    for name, values in CLAIMS.items():
        for value in values:
            file.write_text(json.dumps(whole | {name: value}))
            with pytest.raises(InputError, match=f"{folder}"):
                pretrained.read(root / folder, allow_missing)
    assert time.monotonic() - start < 60  # All of them, on a machine that does other things too.


def test_what_a_config_of_a_person_claims_is_bounded_too():
    with pytest.raises(InputError, match="num_hidden_layers: is 1000000000, must be at most 4,096"):
        ModelConfig(num_hidden_layers=10**9).validate()


def test_fresh_values_are_no_more_than_there_is(root):
    """Arrays that are there have the config's shapes, so only those that are missing can be of any size."""
    from safetensors.numpy import load_file, save_file

    file = root / "hf" / "model.safetensors"
    kept = {
        name: a for name, a in load_file(file).items() if "word_embeddings" not in name and "predictions" not in name
    }
    save_file(kept, file)
    edit_config(root / "hf", vocab_size=1 << 24, architectures=["BertModel"])
    with pytest.raises(InputError, match="asks for 268,435,456 numbers that aren't there"):
        pretrained.read(root / "hf", allow_missing=True, kind="encoder")


def test_tensors_that_are_larger_than_their_file(root):
    file = root / "torch" / "pytorch_model.bin"
    state = torch.load(file)
    name = "bert.embeddings.word_embeddings.weight"
    torch.save(state | {name: torch.zeros(1, 1).expand(20, 16)}, file)
    with pytest.raises(InputError, match=f"{name} isn't stored as it is"):
        pretrained.read(root / "torch")
    torch.save({f"{name}.{i}": shared for i in range(40) for shared in [state[name]]}, file)
    torch.save({**state, **dict.fromkeys((f"x{i}" for i in range(4000)), torch.zeros(1 << 12))}, file)
    with pytest.raises(InputError, match="says that .* bytes are in its"):
        pretrained.read(root / "torch")


def test_an_archive_that_unpacks_to_more_than_its_size(root):
    file = root / "torch" / "pytorch_model.bin"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 24))
    with pytest.raises(InputError, match="more than its size"):
        pretrained.read(root / "torch")


def test_ids_of_a_vocabulary_far_above_its_pieces(root):
    file = root / "bpe" / "tokenizer.json"
    values = json.loads(file.read_text())
    values["model"]["vocab"]["far"] = 4_000_000_000
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="pieces, but ids up to 4000000000"):
        pretrained.tokenizer_folders.read(root / "bpe")


# ---- What needn't be there ------------------------------------------------------------------------------------------

DAMAGE = {
    "bytes": b"\xff\0{\n",
    "a list": b"[]\n",
    "no step": b'{"loss": 1.0}\n',
    "a text": b'{"step": 1, "loss": "x"}\n',
}


@pytest.mark.parametrize(("loss", "shown"), [(2.5, "| 12.18 |"), (1e308, "| e^1e+308 |")])
def test_a_loss_has_a_perplexity_however_large(root, loss, shown):
    folder = root / "pretrained"
    row = {"step": Checkpoints(folder / "checkpoints").latest, "held_out_mlm_loss": loss}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    pretrained.export(folder, root / "exported", "tf1")
    assert f"| perplexity of masked tokens {shown}" in (root / "exported/README.md").read_text()


@pytest.mark.parametrize("row", DAMAGE)
def test_damaged_metrics_stop_nothing_that_needs_none(root, capsys, row):
    file = root / "finetuned" / "metrics.jsonl"
    before = len(metrics.read(file))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], DAMAGE[row], *lines[2:]]))
    assert pretrained.read(root / "finetuned").origin.scores
    assert "metrics.jsonl, line 3: damaged" in (said := capsys.readouterr().err)
    assert said.endswith("it is left out\n")
    assert len(metrics.read(file, whole=False)) == before
    with pytest.raises(InputError, match=r"metrics.jsonl, line 3: damaged .*; take the line out, or remove the file"):
        metrics.Metrics(root / "finetuned", 30)


def test_scores_without_a_value_are_written_and_read_again(root):
    folder = root / "sweep" / "lr-0.02-seed-3"
    saved = json.loads((folder / "scores.json").read_text())
    config = finetuning.config_of(saved)
    (folder / "scores.json").write_text(json.dumps(saved | {"scores": {"dev_accuracy": None}}))
    assert np.isnan(finetuning._scores_of(config, saved["init"], folder)["dev_accuracy"])
    (folder / "scores.json").write_text(json.dumps(saved | {"scores": []}))
    with pytest.raises(InputError, match="scores is .*; remove it, and the same command scores the run again"):
        finetuning._scores_of(config, saved["init"], folder)
    (folder / "scores.json").write_text(json.dumps(contents.with_checksum(saved)))
    assert finetuning._scores_of(config, saved["init"], folder) == saved["scores"]
    changed = json.dumps(contents.with_checksum(saved) | {"scores": dict.fromkeys(saved["scores"], 99.0)})
    (folder / "scores.json").write_text(changed)
    with pytest.raises(InputError, match="its checksum isn't that of its values.; remove it, and the same command"):
        finetuning._scores_of(config, saved["init"], folder)
    assert json.dumps(contents.finite({"a": [np.nan, (1.5, np.inf)]})) == '{"a": [null, [1.5, null]]}'


# ---- What makes no run ----------------------------------------------------------------------------------------------


def test_a_vocabulary_of_special_tokens_alone(tmp_path, config, corpus):
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in tokenizers.SPECIAL))
    bare = dataclasses.replace(config, tokenizer=TokenizerConfig(path=str(tmp_path / "vocab.txt")))
    with pytest.raises(InputError, match=r"vocab.txt: its vocabulary has special tokens alone"):
        prepare(bare, tmp_path / "examples")


def test_an_imported_model_is_no_workdir(root, config, examples):
    with pytest.raises(InputError, match="holds a model that was imported, no run; choose another --workdir"):
        pretrain(config, root / "imported", examples.folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model": 3}, "about: damaged .model is 3, must be an object"),
        ({"model": {"hidden_size": "16"}}, "about: model.hidden_size: is '16', must be int"),
        ({"model": {"vocab_size": None}}, "model.vocab_size: is null"),
        ({"model": {"num_hidden_layers": 10**9}}, "num_hidden_layers: is 1000000000, must be at most"),
        ({"head": {"kind": ["encoder"]}}, r"head.kind: is \['encoder'\]"),
        ({"head": {"labels": "ab"}}, "head.labels: is 'ab', must be a tuple"),
        ({"about": {"config": {}}}, "about: step: missing beside config"),
        ({"about": {"source": ["x"]}}, "about.source is .*, must be a text"),
        ({"about": {"init": 3}}, "about.init is 3, must be a text or null"),
        ({"about": {"embedding": {"max_length": -1}}}, "max_length: is -1, must be at least 2"),
    ],
)
def test_values_in_a_checkpoint_are_typed(root, change, problem):
    file = root / "imported" / "checkpoints" / "0" / "about" / "metadata"
    values = json.loads(file.read_text())
    for name, inner in change.items():
        values[name] = values[name] | inner if isinstance(inner, dict) else inner
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=problem):
        pretrained.read(root / "imported")


def test_a_folder_made_here_is_read(tmp_path):
    """The bounds are above all that is made."""
    assert pretrained.read(make_folder(tmp_path / "model")).params
