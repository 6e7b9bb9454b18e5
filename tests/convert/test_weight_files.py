"""Folders and files that aren't a model's: called what they are, with what to do."""

import gzip
import io
import re
import shutil
import tarfile
import zipfile

import pytest
import torch
from hf_folders import edit_config, make_folder
from safetensors.torch import load_file, save

from bert_jax.config import InputError, TokenizerConfig
from bert_jax.convert import pretrained
from bert_jax.data import tokenizers


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def tar() -> bytes:
    with tarfile.open(fileobj=(target := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model/config.json"))
    return target.getvalue()


def zipped(*names: str) -> bytes:
    with zipfile.ZipFile(target := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return target.getvalue()


def pickled() -> bytes:
    torch.save({"bert.pooler.dense.bias": torch.ones(2)}, target := io.BytesIO(), _use_new_zipfile_serialization=False)
    return target.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0d" * 32 + b"\nsize 437955512\n"
PAGE = b"\n<!doctype html><html><head><title>401 Unauthorized</title></head></html>"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "model.safetensors.index.json")
TEXTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model")
ANY = {"a Git LFS pointer": POINTER, "a web page": PAGE, "empty": b"", "a packed archive": gzip.compress(b"weights")}


@pytest.mark.parametrize("what", ANY)
@pytest.mark.parametrize("name", [*WEIGHTS, *TEXTS])
def test_a_file_that_a_download_left_behind(folder, name, what):
    if name in WEIGHTS:
        (folder / "model.safetensors").unlink()
    if name in ("vocab.txt", "spiece.model"):
        for other in ("tokenizer.json", "vocab.txt"):
            (folder / other).unlink()
    (folder / name).write_bytes(ANY[what])
    with pytest.raises(InputError, match=rf"{name}: {what}"):
        pretrained.read(folder)


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_a_vocabulary_that_a_download_left_behind(tmp_path, kind):
    (tmp_path / "vocab").write_bytes(POINTER)
    with pytest.raises(InputError, match="vocab: a Git LFS pointer"):
        tokenizers.load(str(tmp_path / "vocab"), TokenizerConfig(kind))


SAFETENSORS = save({"bert.pooler.dense.bias": torch.ones(2)})
NOT_THE_KIND = {
    "an answer": (
        "pytorch_model.bin",
        b'{"error": "Entry not found"}',
        r"text, not weights \('{\"error\": \"Entry not",
    ),
    "a tar archive": ("pytorch_model.bin", tar(), "a packed archive; unpack it"),
    "a zip archive": (
        "pytorch_model.bin",
        zipped("bert/vocab.txt"),
        r"a zip archive \(bert/vocab.txt, ...\), not torch's",
    ),
    "TorchScript": (
        "pytorch_model.bin",
        zipped("m/data.pkl", "m/constants.pkl"),
        "a program of TorchScript, which isn't run",
    ),
    "HDF5": ("pytorch_model.bin", b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
    "safetensors": ("pytorch_model.bin", SAFETENSORS, "holds safetensors; call it model.safetensors"),
    "a pickle": ("model.safetensors", pickled(), "a pickle; call it pytorch_model.bin"),
    "a zip": ("model.safetensors", zipped("a"), "a zip archive; call it pytorch_model.bin if torch wrote it"),
    "noise": ("flax_model.msgpack", b"\0\1\2\3" * 99, "cut off or damaged"),
}


@pytest.mark.parametrize("what", NOT_THE_KIND)
def test_weights_of_another_kind_than_their_name(folder, what):
    name, content, message = NOT_THE_KIND[what]
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        pretrained.read(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_a_link_to_nothing(folder, name):
    """As a copy of the Hub's cache is full of."""
    (folder / name).unlink()
    (folder / name).symlink_to(f"../../blobs/{name}")
    with pytest.raises(InputError, match=rf"{name}: a link to ../../blobs/{name}, where nothing is; copy the file"):
        pretrained.read(folder)


# Files in a folder without weights of any name that is read, and what is said of them.
ELSEWHERE = {
    "TensorFlow": (["tf_model.h5"], "tf_model.h5: weights of TensorFlow's Keras; transformers 4"),
    "a shard": (
        ["model-00001-of-00002.safetensors"],
        "model-00001-of-00002.safetensors: a part of the weights, without",
    ),
    "a shard of Flax": (["flax_model-00001-of-00002.msgpack"], "a part of the weights, without the index file"),
    "a variant": (["model.fp16.safetensors"], "model.fp16.safetensors: a variant of the weights; rename"),
    "ZeRO": (["latest", "global_step9", "zero_to_fp32.py"], "parts of a DeepSpeed run; python zero_to_fp32.py"),
    "FSDP": (["pytorch_model_fsdp_0"], "parts of an FSDP run; accelerate merge-weights"),
    "Lightning": (["epoch=3.ckpt"], "epoch=3.ckpt: a name that isn't looked for; .* call it pytorch_model.bin"),
    "a trainer's state": (
        ["optimizer.pt", "scheduler.pt", "rng_state.pth"],
        "the state of a trainer, without its model's",
    ),
    "a run's checkpoints": (
        ["checkpoint-500", "checkpoint-90"],
        "checkpoint-500, checkpoint-90: .*give the folder of one",
    ),
    "ONNX": (["onnx"], "onnx: an ONNX graph, which is for running alone; bring the folder that it was made from"),
    "OpenVINO": (["openvino_model.bin", "openvino_model.xml"], "OpenVINO's form of a model"),
    "Rust": (["rust_model.ot"], "rust_model.ot: another program's form"),
    "llama.cpp": (["bert-q4.gguf"], "bert-q4.gguf: another program's form"),
    "packed": (["bert.zip"], "bert.zip: a packed archive; unpack it"),
    "anything": (["notes", "pictures"], "notes, pictures"),
}


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_folder_without_weights_says_what_is_there(tmp_path, what, config):
    names, message = ELSEWHERE[what]
    folder = tmp_path / "model"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    if config:
        (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=f"model: holds no (weights|checkpoint).*{message}"):
        pretrained.read(folder)


def test_an_adapter_is_no_model_even_beside_one(folder):
    """transformers would add it to the model beside it, or to its base."""
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "bert-base-cased", "peft_type": "LORA"}')
    for name in ("adapter_model.safetensors", "model.safetensors", "config.json"):
        with pytest.raises(InputError, match=r"adapter_config.json: an adapter .*; the base is bert-base-cased"):
            pretrained.read(folder)
        (folder / name).unlink(missing_ok=True)


def test_the_place_of_a_model_is_said(folder, tmp_path):
    cache = tmp_path / "models--bert-base-uncased"
    shutil.copytree(folder, cache / "snapshots/86b5e093")
    for name in ("blobs", "refs"):
        (cache / name).mkdir()
    places = {
        cache: re.escape(f"snapshots: the cache of a model; give {cache}/snapshots/86b5e093"),
        tmp_path: "model, a model's folder by its config.json; give that",
        folder / "model.safetensors": f"it is a file; give its folder, {folder}",
        tmp_path / "bert-base-cased": "there is no such folder; a model of the Hub has to be downloaded first",
    }
    for place, message in places.items():
        with pytest.raises(InputError, match=rf"{place}: holds no checkpoint \(.*{message}"):
            pretrained.read(place)


def test_several_types_of_numbers_in_a_file(folder):
    """Those of 16 bits and more are numbers by themselves; 8 bits are read by nobody without their scales."""
    state, types = (
        load_file(folder / "model.safetensors"),
        [torch.float16, torch.bfloat16, torch.float32, torch.float64],
    )
    state = {name: tensor.clone().to(types[i % 4]) for i, (name, tensor) in enumerate(state.items())}
    (folder / "model.safetensors").write_bytes(save(state))
    embedding = pretrained.read(folder).params["bert"]["embeddings"]["word_embeddings"]["embedding"]
    assert (embedding[:1001] == state["bert.embeddings.word_embeddings.weight"].float().numpy()).all()
    state["bert.pooler.dense.bias"] = state["bert.pooler.dense.bias"].to(torch.float8_e4m3fn)
    (folder / "model.safetensors").write_bytes(save(state))
    with pytest.raises(InputError, match="bert.pooler.dense.bias is of type F8_E4M3; .* weren't quantised"):
        pretrained.read(folder)
    edit_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(
        InputError, match="config.json: quantization_config is 'bitsandbytes', which is quantised weights"
    ):
        pretrained.read(folder)


def test_bert_config_json_is_read_in_its_place(folder):
    """As pytorch-pretrained-bert called it."""
    expected = pretrained.read(folder)
    (folder / "config.json").rename(folder / "bert_config.json")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert pretrained.read(folder).model == expected.model
