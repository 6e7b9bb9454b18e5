"""The names of parameters in bert_jax, in Hugging Face's torch models, and in google-research/bert's checkpoints.

In bert_jax they are paths in the tree of parameters, where those of all layers are stacked on the first axis; the other
two have a name for each layer, with its number in place of {i}. Kernels are [in, out] in bert_jax.
"""

from dataclasses import dataclass
from typing import Literal

Scheme = Literal["hf", "tf1"]
# The end of a parameter's path, as a pattern, and what each of its dimensions is (see `devices.sharding`).
LogicalAxes = tuple[tuple[str, tuple[str | None, ...]], ...]


@dataclass(frozen=True)
class Name:
    """The names of a parameter, or of the same parameter in each layer."""

    path: str
    """Its path in bert_jax's tree of parameters."""
    hf: str
    """Its name in Hugging Face's models."""
    tf1: str
    """Its name in google-research/bert; empty if that has no such parameter."""
    transposed: tuple[Scheme, ...] = ()
    """The schemes whose arrays have the last two axes swapped."""
    padded: bool = False
    """Whether it has a row for each piece of the vocabulary and, in bert_jax, rows of 0 as padding after them."""

    def name_in(self, scheme: Scheme, layer: int | None = None) -> str:
        """Its name in a scheme; for a layer, with the layer's number."""
        name = getattr(self, scheme)
        return name if layer is None else name.format(i=layer)

    @property
    def in_layers(self) -> bool:
        """Whether each layer has such a parameter."""
        return "{i}" in self.hf


def dense(path: str, hf: str, tf1: str = "") -> tuple[Name, ...]:
    """The names of a dense layer with a bias."""
    kernel, bias = (f"{tf1}/kernel", f"{tf1}/bias") if tf1 else ("", "")
    return Name(f"{path}/kernel", f"{hf}.weight", kernel, ("hf",)), Name(f"{path}/bias", f"{hf}.bias", bias)


def output(path: str, hf: str, tf1: str = "") -> tuple[Name, ...]:
    """The names of a head's output layer, whose kernel is [out, in] in google-research/bert."""
    weights = Name(f"{path}/kernel", f"{hf}.weight", f"{tf1}output_weights", ("hf", "tf1"))
    return weights, Name(f"{path}/bias", f"{hf}.bias", f"{tf1}output_bias")


def norm(path: str, hf: str, tf1: str = "") -> tuple[Name, ...]:
    """The names of a LayerNorm."""
    scale, bias = (f"{tf1}/gamma", f"{tf1}/beta") if tf1 else ("", "")
    return Name(f"{path}/scale", f"{hf}.weight", scale), Name(f"{path}/bias", f"{hf}.bias", bias)


def encoder(name: str) -> tuple[Name, ...]:
    """The names of `encoder.Encoder`'s parameters, all under `name`, also in Hugging Face and google-research/bert."""
    at = f"{name}/embeddings"

    def table(table: str, padded: bool = False) -> Name:
        return Name(f"{at}/{table}/embedding", f"{name}.embeddings.{table}.weight", f"{at}/{table}", padded=padded)

    path, hf, tf1 = f"{name}/encoder/layer", f"{name}.encoder.layer.{{i}}", f"{name}/encoder/layer_{{i}}"
    parts = (
        ("attention/self/query", dense),
        ("attention/self/key", dense),
        ("attention/self/value", dense),
        ("attention/output/dense", dense),
        ("attention/output/LayerNorm", norm),
        ("intermediate/dense", dense),
        ("output/dense", dense),
        ("output/LayerNorm", norm),
    )
    layers = (
        layer_name
        for part, make_names in parts
        for layer_name in make_names(f"{path}/{part}", f"{hf}.{part.replace('/', '.')}", f"{tf1}/{part}")
    )
    return (
        table("word_embeddings", padded=True),
        table("position_embeddings"),
        table("token_type_embeddings"),
        *norm(f"{at}/LayerNorm", f"{name}.embeddings.LayerNorm", f"{at}/LayerNorm"),
        *layers,
        *dense(f"{name}/pooler", f"{name}.pooler.dense", f"{name}/pooler/dense"),
    )
