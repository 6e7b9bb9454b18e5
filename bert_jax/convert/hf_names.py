"""The names of today's BertFor... models, whatever the arrays of a folder are called.

Wrappers put something before a model's names: DataParallel `module.`, torch.compile `_orig_mod.`, a class of one's own
what it calls the model, a checkpoint the key of its state dict. Where an encoder begins, its own names show.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bert_jax.config import InputError

# What comes before these in a name, comes before all of the encoder's.
ENCODER = re.compile(
    r"((?:[^.]+\.)*?)(?:embeddings\.(?:word|position|token_type)_embeddings|encoder\.layer\.\d+\.attention)\."
)
# Moments and averages have the names of the weights, in a container of their own.
OPTIMIZER = re.compile(r"(?:^|\.)(?:opt_state|optimizer\w*|optim|lr_scheduler\w*|rng_state\w*)\.")
# Leaves of Flax's names, and of those of 2018. Kernels are [in, out] there.
LEAVES = {".kernel": ".weight", ".scale": ".weight", ".embedding": ".weight"}
OLD_LEAVES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# Buffers of old files, not weights.
BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")


@dataclass(frozen=True)
class Names:
    """The arrays of a folder, by today's names."""

    files: dict[str, str] = field(default_factory=dict)
    """Today's name -> the name in the files."""
    notes: list[str] = field(default_factory=list)
    """What was taken off."""

    def transposed(self, name: str) -> bool:
        """Whether the file has the last two axes the other way round than torch."""
        return self.files[name].endswith(".kernel")


def today(names: Iterable[str], folder: Path) -> Names:
    """Raises `InputError` where an encoder is there twice, or two arrays would have one name."""
    weights = [name for name in names if not OPTIMIZER.search(name)]
    prefix = _prefix(weights, folder)
    wrapper = prefix.removesuffix("bert.")
    files: dict[str, str] = {}
    for name in weights:
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner.startswith(("embeddings.", "encoder.", "pooler.")):
            new = f"bert.{inner}"
        else:
            new = name.removeprefix(wrapper)
        new = _leaf(new)
        if new in files:
            raise InputError(f"{folder}: {name} and {files[new]} are the same weights; remove one of them")
        if new not in BUFFERS:
            files[new] = name
    return Names(files, [f"names begin with {prefix!r} in the files"] if prefix not in ("", "bert.") else [])


def _prefix(names: list[str], folder: Path) -> str:
    """What comes before the names of the encoder; nothing where there is none."""
    prefixes = sorted({matching[1] for name in names if (matching := ENCODER.match(name))})
    if len(prefixes) > 1:
        several = ", ".join(f"{prefix}..." for prefix in prefixes)
        raise InputError(f"{folder}: holds several encoders: {several}; save the one that is meant alone")
    return prefixes[0] if prefixes else ""


def _leaf(name: str) -> str:
    for old, new in (LEAVES | OLD_LEAVES).items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
