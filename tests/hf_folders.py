"""Small models as Hugging Face folders, to be changed."""

import json

import numpy as np
from heads import case
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.convert import names, pretrained
from bert_jax.convert.origin import Folder
from bert_jax.data import tokenizers

MODEL = ModelConfig(
    vocab_size=1001,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=64,
    hidden_dropout_prob=0.0,
    layer_norm_eps=1e-7,
)
VOCABULARY = [*tokenizers.SPECIAL, *(f"word{i}" for i in range(996))]
LABELS = ("bad", "gut", "naïve")
HEADS = {
    "encoder": HeadConfig("encoder"),
    "no_pooler": HeadConfig("encoder", pooler=False),
    "masked_lm": HeadConfig("masked_lm"),
    "pretraining": HeadConfig("pretraining"),
    "sequence_classification": HeadConfig("sequence_classification", LABELS, dropout=0.3),
    "regression": HeadConfig("sequence_classification", ("score",)),
    "token_classification": HeadConfig("token_classification", LABELS),
    "question_answering": HeadConfig("question_answering"),
    "multiple_choice": HeadConfig("multiple_choice"),
}


def random_params(model: ModelConfig, head: HeadConfig) -> dict:
    """Far from their start, but for the rows that fill up the vocabulary."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0.1, 0.2, shape) for name, shape in names.array_shapes(model, head, "hf").items()}
    return names.to_params(lambda name: arrays[name].astype(np.float32), model, head, "hf")


def make_folder(folder, model: ModelConfig = MODEL, head: HeadConfig = HEADS["pretraining"]):
    """An exported model with a tokenizer."""
    folder.mkdir(parents=True)
    tokenizer = tokenizers.WordPiece(VOCABULARY, lowercase=True)
    exported = pretrained.Pretrained(model, head, tokenizer, random_params(model, head), Folder("nowhere"))
    pretrained.export(exported, folder, "hf")
    return folder


def edit_config(folder, **changes):
    """Fields of config.json that are None are left out."""
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {name: value for name, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))


def edited(change):
    return lambda folder: save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def torch_folder(folder, name: str, weights: str | None = "model.safetensors"):
    """What transformers writes of one of `heads.KINDS`, without a tokenizer; returns the case and its state dict.

    Its weights go into the folder too where `weights` is their file's name.
    """
    one = case(name)
    folder.mkdir(parents=True)
    one.torch.config.architectures = [type(one.torch).__name__]
    one.torch.config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in one.torch.state_dict().items()}
    if weights:
        save_torch(state, folder / weights)
    return one, state
