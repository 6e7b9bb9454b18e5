"""Which arrays of a folder fit a model, and which don't."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bert_jax.config import InputError

# How many names of a list an error shows.
SHOWN = 5
# This many numbers may get fresh values, however few the files hold.
FRESH = 1 << 24
# The encoder in Hugging Face's names and in google-research's. A pooler or a head beside it doesn't change it.
ENCODER = re.compile(r"bert[./](?:embeddings|encoder)[./]")


@dataclass(frozen=True)
class Report:
    """What doesn't fit: names of arrays, as the files have them."""

    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """Arrays in the files that are no part of the model."""
    notes: list[str] = field(default_factory=list)
    """Short notes on what else was decided."""

    @classmethod
    def from_shapes(
        cls,
        source: Path,
        wanted: Mapping[str, tuple[int, ...]],
        actual: Mapping[str, tuple[int, ...]],
        allow_missing: bool,
        files: Mapping[str, str] | None = None,
    ) -> "Report":
        """Compares the shapes that a model needs with the actual ones; `files` maps names to those in the files.

        Raises `InputError` where a shape is wrong, where an encoder has arrays that BERT's hasn't, and where arrays are
        missing: more than half of the encoder's, more numbers than the files hold, or any without `allow_missing`.
        """
        in_files = files or {name: name for name in actual}
        wrong = [f"{in_files[n]} {actual[n]}, not {size}" for n, size in wanted.items() if actual.get(n, size) != size]
        missing = [name for name in wanted if name not in actual]
        unused = sorted(in_files[name] for name in actual if name not in wanted)
        encoder = [name for name in wanted if ENCODER.match(name)]
        lacking = [name for name in encoder if name not in actual]
        if 2 * len(lacking) > len(encoder):
            needs = f"a BERT encoder has {_shown(encoder)}; in the files are {_shown(sorted(in_files.values()))}"
            raise InputError(f"{source}: {len(lacking)} of {len(encoder)} arrays of the encoder aren't there: {needs}")
        if wrong:
            raise InputError(f"{source}: doesn't fit its config: {_shown(wrong)}")
        if strange := [in_files[name] for name in actual if ENCODER.match(name) and not _known(name, wanted)]:
            what = f"its encoder has arrays that BERT's hasn't, and computes something else: {_shown(strange)}"
            raise InputError(f"{source}: {what}; merge adapters into the weights, other encoders aren't read")
        if missing and not allow_missing:
            lacks = f"lacks {len(missing)} parameters of the model: {_shown(missing)}"
            others = f"; left over are {_shown(unused)}" if unused else ""
            raise InputError(f"{source}: {lacks}{others}; bert-jax import --allow-missing gives them fresh values")
        fresh, held = (sum(map(math.prod, shapes)) for shapes in ([wanted[name] for name in missing], actual.values()))
        if fresh > max(held, FRESH):
            asks = f"its config asks for {fresh:,} numbers that aren't there, besides the {held:,} that are"
            raise InputError(f"{source}: {asks}; this isn't its config")
        return cls(missing, unused)

    def lines(self) -> list[str]:
        """The whole report as lines to print."""
        named = [("missing, given fresh values", self.missing), ("not used", self.unused)]
        return [*(f"{what}: {', '.join(names)}" for what, names in named if names), *self.notes]


def _known(name: str, wanted: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it is a parameter of the encoder, or an optimizer's moment of one, whose name is longer by one part."""
    return name in wanted or re.sub(r"/[^/]+$", "", name) in wanted


def _shown(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
