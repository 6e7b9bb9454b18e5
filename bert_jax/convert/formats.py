"""What every format is that others have models in. One is a file beside this one, and one line in `convert.pretrained`.

The tokenizer's files and the model card come beside a format's own, whatever it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.convert.report import Report

Read = Callable[[Path, bool, str | None], tuple[ModelConfig, HeadConfig, dict, Report]]


@dataclass(frozen=True)
class Format:
    """A format of folders with a model's config and weights."""

    name: str
    """`bert-jax export --format`."""
    write: Callable[[Path, ModelConfig, HeadConfig, dict], None]
    """Writes a model with its head and parameters into a folder."""
    read: Read | None = None
    """Reads such a folder, with a report of what doesn't fit. Given are the folder, whether missing arrays may have
    fresh values, and the kind of head that is asked for (None: the one that is there). None: it is only written."""
    found: Callable[[Path], int] = lambda folder: 0
    """How much of such a model lies in a folder: 2 its weights, 1 another file of it, 0 nothing."""
    use: Callable[[HeadConfig], list[str]] = lambda head: []
    """Paragraphs of the model card that say how the folder is used."""
    on_hub: bool = False
    """Whether the Hugging Face Hub knows it, and the model card begins with what the Hub reads."""
