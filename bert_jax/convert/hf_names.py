"""The names of today's BertFor... models, whatever the arrays of a folder are called.

Wrappers put something before a model's names: DataParallel `module.`, torch.compile `_orig_mod.`, a class of one's own
what it calls the model, a checkpoint the key of its state dict. Where an encoder begins, its own names show.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import InputError

# What comes before these in a name, comes before all of the encoder's.
ENCODER = re.compile(
    r"((?:[^.]+\.)*?)(?:embeddings\.(?:word|position|token_type)_embeddings|encoder\.layer\.\d+\.attention)\."
)
# Parts of names that wrappers add at any level.
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Moments and averages have the names of the weights, in a container of their own.
OPTIMIZER = re.compile(r"(?:^|\.)(?:opt_state|optimizer\w*|optim|lr_scheduler\w*)\.")
# Leaves of Flax's names, and of those of 2018. Kernels are [in, out] there.
LEAVES = {
    **dict.fromkeys([".kernel", ".scale", ".embedding"], ".weight"),
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
}
# Buffers of old files, not weights.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


@dataclass(frozen=True)
class Names:
    """The arrays of a folder, by today's names."""

    files: dict[str, str]
    """Today's name -> the name in the files."""
    notes: list[str]
    """What was taken off."""

    def transposed(self, name: str) -> bool:
        """Whether the file has the last two axes the other way round than torch."""
        return self.files[name].endswith(".kernel")


def today(names: Iterable[str], folder: Path, encoder: str) -> Names:
    """Those of a model whose encoder has this name, as bert, before its parameters' names.

    Raises `InputError` where an encoder is there twice, two arrays would have one name, or TensorFlow named them."""
    bare = {name: WRAPPERS.sub("", name) for name in names if not OPTIMIZER.search(name)}
    prefix = _prefix(bare, folder)
    wrapper = re.sub(rf"(^|\.){encoder}\.$", r"\1", prefix)
    files: dict[str, str] = {}
    for name, new in bare.items():
        inner = new.removeprefix(prefix)
        of_encoder = new.startswith(prefix) and inner.startswith(("embeddings.", "encoder.", "pooler."))
        new = _with_todays_leaf(f"{encoder}.{inner}" if of_encoder else new.removeprefix(wrapper))
        if new in files:
            raise InputError(f"{folder}: {name} and {files[new]} are the same weights; remove one of them")
        if new.removeprefix(f"{encoder}.") not in BUFFERS:
            files[new] = name
    return Names(files, _notes(files, prefix, encoder))


def _prefix(bare: dict[str, str], folder: Path) -> str:
    """What comes before the names of the encoder; nothing where there is none."""
    for name in bare:
        if name.endswith(":0"):
            remedy = "transformers 4 makes torch's of it: BertModel.from_pretrained(FOLDER).save_pretrained(NEW)"
            raise InputError(f"{folder}: {name} is a name of TensorFlow's Keras models, which aren't read; {remedy}")
    # Each with the first name that has it.
    prefixes = {matching[1]: name for name, new in reversed(bare.items()) if (matching := ENCODER.match(new))}
    if len(prefixes) > 1:
        several = " and ".join(sorted(prefixes.values()))
        raise InputError(f"{folder}: holds several encoders, as {several} show; save the one that is meant alone")
    return next(iter(prefixes), "")


def _with_todays_leaf(name: str) -> str:
    for old, new in LEAVES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _notes(files: dict[str, str], prefix: str, encoder: str) -> list[str]:
    wrapped = [(name, new) for new, name in files.items() if WRAPPERS.search(name) or prefix not in ("", f"{encoder}.")]
    return [f"{name} is taken for {new}, and all others alike" for name, new in wrapped[:1]]
