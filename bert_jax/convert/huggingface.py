"""Folders of Hugging Face's transformers: config.json, safetensors, tokenizer files."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.convert import names

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
FIELDS = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
]


def read(folder: Path) -> tuple[ModelConfig, HeadConfig, dict]:
    """The config, head and parameters of such a folder."""
    config = json.loads((folder / "config.json").read_text())
    model = ModelConfig(**{name: config[name] for name in FIELDS}, hidden_act=ACTIVATIONS[config["hidden_act"]])
    head = HeadConfig("encoder")
    with safe_open(folder / "model.safetensors", framework="np") as tensors:
        there = set(tensors.keys())

        def get(name: str) -> np.ndarray:
            return tensors.get_tensor(name if name in there else name.removeprefix("bert."))

        return model, head, names.ours(get, model, head, "hf")
