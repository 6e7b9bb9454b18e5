"""What a model format consists of. Each format is a file beside this one, and a line in `convert.pretrained`.

The tokenizer's files and the model card are written beside the format's own files, whatever the format.
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
    """The value of `bert-jax export --format`."""
    write: Callable[[Path, ModelConfig, HeadConfig, dict], None]
    """Writes a model with its head and parameters into a folder."""
    read: Read | None = None
    """Reads such a folder, and reports what doesn't fit. Arguments: the folder, whether missing arrays may get fresh
    values, and the kind of head that is wanted (None: the one that the folder has). None: it can only be written."""
    match: Callable[[Path], int] = lambda folder: 0
    """How well a folder matches the format: 2 if it has weights, 1 if it has other files of the format, else 0."""
    use: Callable[[HeadConfig], list[str]] = lambda head: []
    """Paragraphs of the model card that say how to use the folder."""
    on_hub: bool = False
    """Whether the Hugging Face Hub knows the format: then the model card begins with metadata for the Hub."""
