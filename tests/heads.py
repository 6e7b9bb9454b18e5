"""Every kind of head as transformers' torch models have it, with weights in our names by a table of the tests' own."""

import collections
import dataclasses
import functools
from types import SimpleNamespace

import jax
import numpy as np
import torch
import transformers
from torch_bert import in_our_names

from bert_jax.config import HeadConfig, MeshConfig, ModelConfig, model_preset
from bert_jax.data.tokenizers import PAD
from bert_jax.devices import sharding
from bert_jax.inference.engine import Engine

# Not divisible by 256: rows fill up the vocabulary.
TINY = model_preset("tiny", vocab_size=1001)
LABELS = ("bad", "so-so", "good")

# name -> model, head, torch class.
KINDS = {
    "encoder": (TINY, HeadConfig("encoder"), "BertModel"),
    "encoder without pooler": (TINY, HeadConfig("encoder", pooler=False), "BertModel"),
    "masked_lm": (TINY, HeadConfig("masked_lm"), "BertForMaskedLM"),
    "pretraining": (TINY, HeadConfig("pretraining"), "BertForPreTraining"),
    "gelu_tanh": (dataclasses.replace(TINY, hidden_act="gelu_tanh"), HeadConfig("pretraining"), "BertForPreTraining"),
    "classifier": (TINY, HeadConfig("sequence_classification", LABELS), "BertForSequenceClassification"),
    "regression": (TINY, HeadConfig("sequence_classification", ("score",)), "BertForSequenceClassification"),
    "token_classification": (TINY, HeadConfig("token_classification", LABELS), "BertForTokenClassification"),
    "question_answering": (TINY, HeadConfig("question_answering"), "BertForQuestionAnswering"),
    "multiple_choice": (TINY, HeadConfig("multiple_choice"), "BertForMultipleChoice"),
}


@dataclasses.dataclass
class Case:
    """A model of ours, and torch's with the same weights."""

    model: ModelConfig
    head: HeadConfig
    params: dict
    torch: torch.nn.Module

    def batch(self, size: int, length: int) -> dict[str, np.ndarray]:
        """Random ids, two segments, and padding behind all rows but the first."""
        rng = np.random.default_rng(length)
        shape = (size, 3, length) if self.head.kind == "multiple_choice" else (size, length)
        lengths = rng.integers(2, length + 1, shape[:-1])
        lengths[0] = length
        mask = np.arange(length) < lengths[..., None]
        types = np.arange(length) >= lengths[..., None] // 2
        ids = rng.integers(0, self.model.vocab_size, shape)
        return {name: x.astype(np.int32) for name, x in zip(INPUTS, (ids, types * mask, mask), strict=True)}

    def expected(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Torch's outputs, by its names."""
        with torch.no_grad():
            found = self.torch(**{name: torch.tensor(x, dtype=torch.long) for name, x in batch.items()})
        return {name: value.numpy() for name, value in found.items() if value is not None}

    def check(self, found: dict[str, np.ndarray], batch: dict[str, np.ndarray]) -> None:
        """That the outputs are torch's, all of them, to 1e-4."""
        expected = self.expected(batch)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].shape == value.shape and found[name].dtype == np.float32, name
            assert np.abs(found[name] - value).max() < 1e-4, name


INPUTS = ("input_ids", "token_type_ids", "attention_mask")


@functools.cache
def case(name: str) -> Case:
    """One of `KINDS` with random weights, far from their start."""
    model, head, _ = KINDS[name]
    bert = torch_model(model, head, KINDS[name][2])
    return Case(model, head, params_of(bert, model, head), bert)


def torch_model(model: ModelConfig, head: HeadConfig, kind: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    sizes = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings"
    config = transformers.BertConfig(
        **{name: getattr(model, name) for name in sizes.split()},
        hidden_act={"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[model.hidden_act],
        attn_implementation="eager",
        **({"num_labels": len(head.labels)} if head.labels else {}),
    )
    without_pooler = {"add_pooling_layer": False} if kind == "BertModel" and not head.pooler else {}
    bert = getattr(transformers, kind)(config, **without_pooler).eval()
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return bert


class State(collections.UserDict):
    """A torch model's weights; those that it lacks are made up, to be left out again."""

    def __missing__(self, name):
        return torch.zeros(1, 1)


def params_of(bert: torch.nn.Module, model: ModelConfig, head: HeadConfig) -> dict:
    """The torch model's weights as our parameters."""
    prefix = "" if hasattr(bert, "bert") else "bert."
    state = State({prefix + name: value.clone() for name, value in bert.state_dict().items()})
    tree = in_our_names(state, model.num_hidden_layers)
    cls = tree.pop("cls")
    if "bert.pooler.dense.weight" not in state:
        del tree["bert"]["pooler"]
    if head.kind in ("masked_lm", "pretraining"):
        tree["cls"] = cls
        if head.kind == "masked_lm":
            del cls["seq_relationship"]
    elif head.kind != "encoder":
        at = "qa_outputs" if head.kind == "question_answering" else "classifier"
        tree["classifier"] = {"dense": {"kernel": state[f"{at}.weight"].numpy().T, "bias": state[f"{at}.bias"].numpy()}}
    return tree


def assert_equal(a: dict, b: dict) -> None:
    """That two trees of parameters are the same, to the bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y), strict=True), a, b)


def engine_of(model, params) -> Engine:
    """On one device, without a tokenizer: texts are ids already."""
    mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
    return Engine.with_params(model, params, mesh, SimpleNamespace(special_ids={PAD: 0}))
