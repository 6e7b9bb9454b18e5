"""What a parameter is called here, by Hugging Face's torch models, and in google-research/bert's checkpoints.

One table for every direction. Ours are paths in the tree of parameters, those of the layers stacked on a first axis;
theirs have a name for each layer, with its number in place of {i}. Kernels are [in, out] here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import flax.traverse_util
import jax
import numpy as np

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import init_params, make_model

Scheme = Literal["hf", "tf1"]


@dataclass(frozen=True)
class Name:
    """A parameter."""

    ours: str
    hf: str
    tf1: str
    transposed: tuple[Scheme, ...] = ()
    """The schemes that have the last two axes the other way round."""

    def theirs(self, scheme: Scheme, layer: int | None = None) -> str:
        name = getattr(self, scheme)
        return name if layer is None else name.format(i=layer)

    @property
    def in_layers(self) -> bool:
        return "{i}" in self.hf


def _dense(ours: str, hf: str, tf1: str) -> list[Name]:
    return [Name(f"{ours}/kernel", f"{hf}.weight", f"{tf1}/kernel", ("hf",)), _bias(ours, hf, f"{tf1}/bias")]


def _bias(ours: str, hf: str, tf1: str) -> Name:
    return Name(f"{ours}/bias", f"{hf}.bias", tf1)


def _output(ours: str, hf: str, tf1: str) -> list[Name]:
    """The product of a head, which the original made by hand: [out, in]."""
    weights = Name(f"{ours}/kernel", f"{hf}.weight", f"{tf1}output_weights", ("hf", "tf1"))
    return [weights, _bias(ours, hf, f"{tf1}output_bias")]


def _norm(ours: str, hf: str, tf1: str) -> list[Name]:
    return [Name(f"{ours}/scale", f"{hf}.weight", f"{tf1}/gamma"), _bias(ours, hf, f"{tf1}/beta")]


def _table(name: str) -> Name:
    at = "bert/embeddings"
    return Name(f"{at}/{name}/embedding", f"bert.embeddings.{name}.weight", f"{at}/{name}")


def _layer() -> list[Name]:
    ours, hf, tf1 = "bert/encoder/layer", "bert.encoder.layer.{i}", "bert/encoder/layer_{i}"
    parts = [
        ("attention/self/query", _dense),
        ("attention/self/key", _dense),
        ("attention/self/value", _dense),
        ("attention/output/dense", _dense),
        ("attention/output/LayerNorm", _norm),
        ("intermediate/dense", _dense),
        ("output/dense", _dense),
        ("output/LayerNorm", _norm),
    ]
    return [
        name
        for part, names in parts
        for name in names(f"{ours}/{part}", f"{hf}.{part.replace('/', '.')}", f"{tf1}/{part}")
    ]


WORD_EMBEDDINGS = "bert/embeddings/word_embeddings/embedding"
MLM_BIAS = "cls/predictions/output_bias"
# These have a row for each piece of the vocabulary, and here rows of 0 behind them.
PADDED = (WORD_EMBEDDINGS, MLM_BIAS)

ENCODER = [
    _table("word_embeddings"),
    _table("position_embeddings"),
    _table("token_type_embeddings"),
    *_norm("bert/embeddings/LayerNorm", "bert.embeddings.LayerNorm", "bert/embeddings/LayerNorm"),
    *_layer(),
    *_dense("bert/pooler", "bert.pooler.dense", "bert/pooler/dense"),
]
PREDICTIONS = [
    *_dense(*("cls/predictions/transform/dense", "cls.predictions.transform.dense", "cls/predictions/transform/dense")),
    *_norm(
        "cls/predictions/transform/LayerNorm",
        "cls.predictions.transform.LayerNorm",
        "cls/predictions/transform/LayerNorm",
    ),
    Name(MLM_BIAS, "cls.predictions.bias", "cls/predictions/output_bias"),
]
NEXT_SENTENCE = _output("cls/seq_relationship", "cls.seq_relationship", "cls/seq_relationship/")
CLASSIFIER = _output("classifier/dense", "classifier", "")
QUESTION_ANSWERING = _output("classifier/dense", "qa_outputs", "cls/squad/")

HEADS: dict[str, list[Name]] = {
    "encoder": [],
    "masked_lm": PREDICTIONS,
    "pretraining": [*PREDICTIONS, *NEXT_SENTENCE],
    "sequence_classification": CLASSIFIER,
    "token_classification": CLASSIFIER,
    "question_answering": QUESTION_ANSWERING,
    "multiple_choice": CLASSIFIER,
}


def names(shapes: dict[str, jax.ShapeDtypeStruct], head: HeadConfig) -> list[Name]:
    """Those of a model's parameters, in the table's order."""
    return [name for name in (*ENCODER, *HEADS[head.kind]) if name.ours in shapes]


def shapes_of(model: ModelConfig, head: HeadConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The path of each parameter of such a model, with its shape."""
    return jax.eval_shape(lambda: fresh(model, head))


def fresh(model: ModelConfig, head: HeadConfig) -> dict[str, jax.Array]:
    """New parameters by their paths."""
    # Compiled as one program, which takes seconds where each operation by itself takes many.
    return flax.traverse_util.flatten_dict(jax.jit(lambda: init_params(make_model(model, head), 0))(), sep="/")


def theirs(params: dict, model: ModelConfig, head: HeadConfig, scheme: Scheme) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a tree of parameters by their names in the scheme, one after the other, float32."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    for name in names(flat, head):
        layers = range(model.num_hidden_layers) if name.in_layers else [None]
        for layer in layers:
            array = np.asarray(flat[name.ours] if layer is None else flat[name.ours][layer])
            array = array[: model.vocab_size] if name.ours in PADDED else array
            yield name.theirs(scheme, layer), array.T if scheme in name.transposed else array


def shapes_there(model: ModelConfig, head: HeadConfig, scheme: Scheme) -> dict[str, tuple[int, ...]]:
    """The shapes that the scheme's arrays must have, by their names."""
    shapes, found = shapes_of(model, head), {}
    for name in names(shapes, head):
        shape = shapes[name.ours].shape[1 if name.in_layers else 0 :]
        shape = (model.vocab_size, *shape[1:]) if name.ours in PADDED else shape
        shape = shape[::-1] if scheme in name.transposed else shape
        for layer in range(model.num_hidden_layers) if name.in_layers else [None]:
            found[name.theirs(scheme, layer)] = shape
    return found


def ours(read: Callable[[str], np.ndarray | None], model: ModelConfig, head: HeadConfig, scheme: Scheme) -> dict:
    """The tree of parameters, each array of the scheme read once, by its name, and of the shape of `shapes_there`.

    A name for which `read` returns None keeps its fresh value: the caller has asked for that.
    """
    shapes, flat = shapes_of(model, head), {}
    new: dict[str, jax.Array] = {}
    for name in names(shapes, head):
        array = np.zeros(shapes[name.ours].shape, np.float32)
        for layer in range(model.num_hidden_layers) if name.in_layers else [None]:
            part = array if layer is None else array[layer]
            value = read(name.theirs(scheme, layer))
            if value is None:
                new = new or fresh(model, head)
                value = np.asarray(new[name.ours] if layer is None else new[name.ours][layer])
            elif scheme in name.transposed:
                value = value.T
            part[: len(value)] = value
        flat[name.ours] = array
    return flax.traverse_util.unflatten_dict(flat, sep="/")
