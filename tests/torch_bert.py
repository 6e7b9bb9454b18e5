"""The reference: transformers' BertForPreTraining in torch, and its weights in our names."""

import numpy as np
import torch
from transformers import BertConfig, BertForPreTraining

from bert_jax.config import ModelConfig


def reference(model: ModelConfig, seed: int = 0) -> BertForPreTraining:
    """A torch model of the same shape, with weights far from their start, without dropout."""
    torch.manual_seed(seed)
    fields = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings"
    config = BertConfig(
        **{name: getattr(model, name) for name in fields.split()},
        type_vocab_size=model.type_vocab_size,
        hidden_act={"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[model.hidden_act],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    bert = BertForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return bert


def in_our_names(tensors: dict[str, torch.Tensor], layers: int) -> dict:
    """Weights or gradients by torch's names -> the tree of our parameters."""

    def get(name: str, transposed: bool) -> np.ndarray:
        array = tensors[name].detach().numpy()
        return array.T if transposed else array

    def dense(name: str, transposed: bool = True) -> dict:
        return {"kernel": get(f"{name}.weight", transposed), "bias": get(f"{name}.bias", False)}

    def norm(name: str) -> dict:
        return {"scale": get(f"{name}.weight", False), "bias": get(f"{name}.bias", False)}

    def layer(i: int) -> dict:
        at = f"bert.encoder.layer.{i}"
        return {
            "attention": {
                "self": {name: dense(f"{at}.attention.self.{name}") for name in ("query", "key", "value")},
                "output": {
                    "dense": dense(f"{at}.attention.output.dense"),
                    "LayerNorm": norm(f"{at}.attention.output.LayerNorm"),
                },
            },
            "intermediate": {"dense": dense(f"{at}.intermediate.dense")},
            "output": {"dense": dense(f"{at}.output.dense"), "LayerNorm": norm(f"{at}.output.LayerNorm")},
        }

    def stacked(trees: list):
        if isinstance(trees[0], dict):
            return {name: stacked([tree[name] for tree in trees]) for name in trees[0]}
        return np.stack(trees)

    def filled(name: str) -> np.ndarray:
        """With rows of 0 up to a multiple of 256."""
        array = get(name, False)
        return np.pad(array, [(0, -len(array) % 256), *[(0, 0)] * (array.ndim - 1)])

    tables = ("position_embeddings", "token_type_embeddings")
    embeddings = {t: {"embedding": get(f"bert.embeddings.{t}.weight", False)} for t in tables}
    embeddings["word_embeddings"] = {"embedding": filled("bert.embeddings.word_embeddings.weight")}
    return {
        "bert": {
            "embeddings": embeddings | {"LayerNorm": norm("bert.embeddings.LayerNorm")},
            "encoder": {"layer": stacked([layer(i) for i in range(layers)])},
            "pooler": dense("bert.pooler.dense"),
        },
        "cls": {
            "predictions": {
                "transform": {
                    "dense": dense("cls.predictions.transform.dense"),
                    "LayerNorm": norm("cls.predictions.transform.LayerNorm"),
                },
                "output_bias": filled("cls.predictions.bias"),
            },
            "seq_relationship": dense("cls.seq_relationship"),
        },
    }


def inputs(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A batch in the form that the torch model takes, with the labels at their places in the sequence."""
    labels = np.full(batch["input_ids"].shape, -100)
    rows, columns = np.nonzero(batch["masked_lm_weights"])
    labels[rows, batch["masked_lm_positions"][rows, columns]] = batch["masked_lm_ids"][rows, columns]
    named = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    named |= {"labels": labels, "next_sentence_label": batch["next_sentence_labels"]}
    return {name: torch.tensor(value, dtype=torch.long) for name, value in named.items()}
