"""What bert_jax knows about a family of encoders. Each is a folder beside this file and a line in `registry.py`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn

from bert_jax.config import ModelConfig
from bert_jax.models.heads.base import Head
from bert_jax.models.names import LogicalAxes, Name


def _no_problems(config: ModelConfig) -> Iterator[tuple[str, str]]:
    return iter(())


def _from_hf(fields: dict, config: dict) -> dict:
    return fields


def _to_hf(config: ModelConfig, fields: dict) -> dict:
    return fields


@dataclass(frozen=True, eq=False)
class Architecture:
    """A family of encoders."""

    name: str
    """`ModelConfig.architecture`, model_type in Hugging Face's config.json, and the key of the encoder's parameters."""
    prefix: str
    """How its classes' names in transformers begin: Bert, as in BertForMaskedLM."""
    title: str
    """Its name as people write it."""
    encoder: Callable[..., nn.Module]
    """Makes the module from (config, pooler); the module takes and returns what `encoder.Encoder` does."""
    names: tuple[Name, ...]
    """The names of the encoder's parameters."""
    flops_per_token: Callable[[ModelConfig, int, int], float]
    """Floating-point operations of its matrix products for one token, forward and backward, from the config, the
    sequence's length and its number of masked positions. A multiply-add counts as two."""
    logical_axes: LogicalAxes
    """What each dimension of the encoder's parameters is, by the end of their paths (see `Model.logical_axes`)."""
    heads: Mapping[str, Head] = field(default_factory=dict)
    """Its own heads, by kind, in place of those in `HEADS`."""
    without: tuple[str, ...] = ()
    """Kinds of heads that it doesn't have."""
    hf_defaults: Mapping[str, object] = field(default_factory=dict)
    """The values that transformers takes for fields missing in config.json, where `ModelConfig` has other defaults."""
    from_hf: Callable[[dict, dict], dict] = _from_hf
    """The fields of `ModelConfig`, from those of the same names in config.json, and from all of config.json."""
    to_hf: Callable[[ModelConfig, dict], dict] = _to_hf
    """The inverse: fields of config.json, from the config and its fields of the same names."""
    encoder_of: tuple[str, ...] = ()
    """Other model types that differ from this one in name and head only."""
    graph: Callable[[Any, str, str, str], str] | None = None
    """Adds the encoder to an ONNX graph (`convert.onnx.Graph`), given the names of `input_ids`, `token_type_ids` and
    `attention_mask`; returns the name of the hidden states. None: it can't be exported to ONNX."""
    tf1: bool = False
    """Whether google-research/bert has this architecture."""
    problems: Callable[[ModelConfig], Iterator[tuple[str, str]]] = _no_problems
    """The fields of a config that make no sense in this architecture, each with the problem and the remedy."""
