"""What a parameter is called here, by Hugging Face's torch models, and in google-research/bert's checkpoints.

Ours are paths in the tree of parameters, those of the layers stacked on a first axis; theirs have a name for each
layer, with its number in place of {i}. Kernels are [in, out] here.
"""

from dataclasses import dataclass
from typing import Literal

Scheme = Literal["hf", "tf1"]
# The end of a parameter's path, as a pattern, and what each of its dimensions is (see `devices.sharding`).
LogicalAxes = tuple[tuple[str, tuple[str | None, ...]], ...]


@dataclass(frozen=True)
class Name:
    """A parameter."""

    ours: str
    hf: str
    tf1: str
    """Empty where google-research/bert has no such parameter."""
    transposed: tuple[Scheme, ...] = ()
    """The schemes that have the last two axes the other way round."""
    padded: bool = False
    """Whether it has a row for each piece of the vocabulary, and here rows of 0 behind them."""

    def theirs(self, scheme: Scheme, layer: int | None = None) -> str:
        name = getattr(self, scheme)
        return name if layer is None else name.format(i=layer)

    @property
    def in_layers(self) -> bool:
        return "{i}" in self.hf


def dense(ours: str, hf: str, tf1: str = "") -> tuple[Name, ...]:
    """A product with a bias."""
    kernel, bias = (f"{tf1}/kernel", f"{tf1}/bias") if tf1 else ("", "")
    return Name(f"{ours}/kernel", f"{hf}.weight", kernel, ("hf",)), Name(f"{ours}/bias", f"{hf}.bias", bias)


def output(ours: str, hf: str, tf1: str = "") -> tuple[Name, ...]:
    """The product of a head, which google-research/bert made by hand: [out, in]."""
    weights = Name(f"{ours}/kernel", f"{hf}.weight", f"{tf1}output_weights", ("hf", "tf1"))
    return weights, Name(f"{ours}/bias", f"{hf}.bias", f"{tf1}output_bias")


def norm(ours: str, hf: str, tf1: str = "") -> tuple[Name, ...]:
    """A LayerNorm."""
    scale, bias = (f"{tf1}/gamma", f"{tf1}/beta") if tf1 else ("", "")
    return Name(f"{ours}/scale", f"{hf}.weight", scale), Name(f"{ours}/bias", f"{hf}.bias", bias)


def encoder(name: str) -> tuple[Name, ...]:
    """The parameters of `encoder.Encoder`, all under `name`, as Hugging Face and google-research/bert have them too."""
    at = f"{name}/embeddings"

    def table(table: str, padded: bool = False) -> Name:
        return Name(f"{at}/{table}/embedding", f"{name}.embeddings.{table}.weight", f"{at}/{table}", padded=padded)

    ours, hf, tf1 = f"{name}/encoder/layer", f"{name}.encoder.layer.{{i}}", f"{name}/encoder/layer_{{i}}"
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
    layers = (n for part, of in parts for n in of(f"{ours}/{part}", f"{hf}.{part.replace('/', '.')}", f"{tf1}/{part}"))
    return (
        table("word_embeddings", padded=True),
        table("position_embeddings"),
        table("token_type_embeddings"),
        *norm(f"{at}/LayerNorm", f"{name}.embeddings.LayerNorm", f"{at}/LayerNorm"),
        *layers,
        *dense(f"{name}/pooler", f"{name}.pooler.dense", f"{name}/pooler/dense"),
    )
