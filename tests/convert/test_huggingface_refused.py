"""Hugging Face folders that are refused: by name, in one line, with nothing run and nothing written."""

import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from hf_folders import edit_config, edited, make_folder

from bert_jax.cli.main import main


class Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


def cut_off(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def pickled_code(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"bert.pooler.dense.bias": Code()}))


def zipped_code(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"bert.pooler.dense.bias": Code()}, folder / "pytorch_model.bin")


def shard_lost(folder):
    (folder / "model.safetensors").unlink()
    weight_map = {"bert.pooler.dense.bias": "model-1.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def without(name):
    return edited(lambda tensors: {n: x for n, x in tensors.items() if n != name})


def untied(tensors):
    return tensors | {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"] + 1}


REFUSED = {
    "cut_off": (cut_off, "model.safetensors: cut off or damaged"),
    "pickled_code": (pickled_code, "pytorch_model.bin: refused, it holds more than tensors"),
    "zipped_code": (zipped_code, "pytorch_model.bin: refused, it holds more than tensors"),
    "shard_lost": (shard_lost, "model-1.safetensors: model.safetensors.index.json names it"),
    "no_weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "missing": (without("cls.predictions.bias"), "lacks 1 parameters of the model: cls.predictions.bias"),
    "untied": (edited(untied), "cls.predictions.decoder.weight differs from bert.embeddings.word_embeddings"),
    "whole_numbers": (
        edited(lambda t: t | {"bert.pooler.dense.bias": t["bert.pooler.dense.bias"].astype(np.int32)}),
        "bert.pooler.dense.bias is of type I32",
    ),
    "fewer_layers": (lambda f: edit_config(f, num_hidden_layers=1), "num_hidden_layers is 1, the weights have 2"),
    "wider": (lambda f: edit_config(f, hidden_size=64), r"word_embeddings.weight \(1001, 32\), not \(1001, 64\)"),
    "larger_vocabulary": (lambda f: edit_config(f, vocab_size=1008), r"\(1001, 32\), not \(1008, 32\)"),
    "much_smaller_vocabulary": (lambda f: edit_config(f, vocab_size=500), r"\(1001, 32\), not \(500, 32\)"),
    "heads": (lambda f: edit_config(f, num_attention_heads=5), "config.json: num_attention_heads: 5 doesn't divide"),
    "type": (lambda f: edit_config(f, hidden_size="wide"), "config.json: hidden_size: is 'wide', must be int"),
    "another_model": (lambda f: edit_config(f, model_type="electra"), "model_type is 'electra'"),
    "relative": (lambda f: edit_config(f, position_embedding_type="relative_key"), "position_embedding_type is"),
    "decoder": (lambda f: edit_config(f, is_decoder=True), "is_decoder is True"),
    "activation": (lambda f: edit_config(f, hidden_act="relu"), "hidden_act is 'relu'"),
    "architecture": (lambda f: edit_config(f, architectures=["BertLMHeadModel"]), "architectures is"),
    "no_json": (lambda f: (f / "config.json").write_text("{"), "config.json: damaged"),
    "more_tokens": (
        lambda f: ((f / "tokenizer.json").unlink(), (f / "vocab.txt").open("a").write("more\n")),
        "1001 rows of word embeddings, but its tokenizer 1002 tokens",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_by_name_with_nothing_run_or_written(tmp_path, monkeypatch, capsys, name):
    change, message = REFUSED[name]
    folder = make_folder(tmp_path / "model")
    change(folder)
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(folder), str(tmp_path / "a/b")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and str(folder) in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
