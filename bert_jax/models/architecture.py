"""What a family of encoders knows of itself. One is a folder beside this file, and one line in `bert_jax.models`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn

from bert_jax.config import ModelConfig
from bert_jax.models.heads.base import Head
from bert_jax.models.names import LogicalAxes, Name


def _no_problems(config: ModelConfig) -> Iterator[tuple[str, str]]:
    return iter(())


def _of_hf(fields: dict, config: dict) -> dict:
    return fields


def _to_hf(config: ModelConfig, fields: dict) -> dict:
    return fields


@dataclass(frozen=True, eq=False)
class Architecture:
    """A family of encoders."""

    name: str
    """`ModelConfig.architecture`, model_type in Hugging Face's config.json, and where the encoder's parameters lie."""
    prefix: str
    """Of its classes' names in transformers: Bert, of BertForMaskedLM."""
    title: str
    """As people write it."""
    encoder: Callable[..., nn.Module]
    """A module of (config, pooler), which takes and returns what `encoder.Encoder` does."""
    names: tuple[Name, ...]
    """Of the encoder's parameters."""
    flops_per_token: Callable[[ModelConfig, int, int], float]
    """Floating-point operations of its products, forward and backward, for one token of a sequence of a length, with
    so many masked positions in it (two for a multiply-add)."""
    logical_axes: LogicalAxes
    """What each dimension of the encoder's parameters is, by the end of their paths (see `Model.logical_axes`)."""
    heads: Mapping[str, Head] = field(default_factory=dict)
    """Its own heads, by kind, in place of those that all share."""
    without: tuple[str, ...] = ()
    """Kinds of heads that it doesn't have."""
    hf_defaults: Mapping[str, object] = field(default_factory=dict)
    """What transformers takes where config.json is silent, and isn't what `ModelConfig` does."""
    of_hf: Callable[[dict, dict], dict] = _of_hf
    """Fields of `ModelConfig` out of those of the same names in config.json, and all of config.json."""
    to_hf: Callable[[ModelConfig, dict], dict] = _to_hf
    """The inverse: what config.json has in place of the fields of the same names, and besides them."""
    encoder_of: tuple[str, ...] = ()
    """Other model types that are this one but for name and head."""
    graph: Callable[[Any, str, str, str], str] | None = None
    """Its encoder in an ONNX graph (`convert.onnx.Graph`): from the names of `input_ids`, `token_type_ids` and
    `attention_mask` to that of the hidden states. None: it isn't exported so."""
    tf1: bool = False
    """Whether google-research/bert has it."""
    problems: Callable[[ModelConfig], Iterator[tuple[str, str]]] = _no_problems
    """Fields of a config that make no sense in it, with what is wrong and what to do."""
