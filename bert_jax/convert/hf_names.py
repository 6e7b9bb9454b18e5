"""Maps the names of a folder's arrays, whatever they are, to the names of today's BertFor... models.

Wrappers put a prefix before a model's names: DataParallel `module.`, torch.compile `_orig_mod.`, a user's class the
attribute that holds the model, a checkpoint the key of its state dict. The prefix ends where the encoder's names begin.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import InputError

# The prefix of these names is the prefix of all of the encoder's names.
ENCODER = re.compile(
    r"((?:[^.]+\.)*?)(?:embeddings\.(?:word|position|token_type)_embeddings|encoder\.layer\.\d+\.attention)\."
)
# Parts of names that wrappers add at any level.
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Moments and averages of an optimizer have the names of the weights, in one of these containers.
OPTIMIZER = re.compile(r"(?:^|\.)(?:opt_state|optimizer\w*|optim|lr_scheduler\w*)\.")
# The last parts of Flax's names, and of the names of 2018. Flax's kernels are [in, out].
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
    """Notes on prefixes that were removed."""

    def transposed(self, name: str) -> bool:
        """Whether the file has the last two axes in the opposite order to torch."""
        return self.files[name].endswith(".kernel")


def today(names: Iterable[str], folder: Path, encoder: str) -> Names:
    """Maps names to those of a model whose encoder's names begin with `encoder`, as bert.

    Raises `InputError` where there are two encoders, two arrays would get one name, or the names are TensorFlow's."""
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
    """The prefix of the encoder's names; empty where there is no encoder."""
    for name in bare:
        if name.endswith(":0"):
            remedy = "transformers 4 makes torch's of it: BertModel.from_pretrained(FOLDER).save_pretrained(NEW)"
            raise InputError(f"{folder}: {name} is a name of TensorFlow's Keras models, which aren't read; {remedy}")
    # Each prefix with the first name that has it.
    prefixes = {matching[1]: name for name, new in reversed(bare.items()) if (matching := ENCODER.match(new))}
    if len(prefixes) > 1:
        several = " and ".join(sorted(prefixes.values()))
        raise InputError(f"{folder}: holds several encoders, as {several} show; save the one that you want by itself")
    return next(iter(prefixes), "")


def _with_todays_leaf(name: str) -> str:
    for old, new in LEAVES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _notes(files: dict[str, str], prefix: str, encoder: str) -> list[str]:
    wrapped = [(name, new) for new, name in files.items() if WRAPPERS.search(name) or prefix not in ("", f"{encoder}.")]
    return [f"{name} is taken for {new}, and all others alike" for name, new in wrapped[:1]]
