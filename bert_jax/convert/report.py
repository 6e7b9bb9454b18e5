"""What fits a model of the arrays that were found, and what doesn't."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bert_jax.config import InputError

# Of each list, an error names so many.
SHOWN = 5
# So many numbers may have fresh values, however few there are.
FRESH = 1 << 24
# In Hugging Face's names and in google-research's. A pooler or a head beside it changes nothing in it.
ENCODER = re.compile(r"bert[./](?:embeddings|encoder)[./]")


@dataclass(frozen=True)
class Report:
    """Names of arrays, as they are called in the files."""

    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """They are there, and no part of the model."""
    notes: list[str] = field(default_factory=list)
    """What else was decided, each in a few words."""

    @classmethod
    def of(
        cls,
        source: Path,
        wanted: Mapping[str, tuple[int, ...]],
        there: Mapping[str, tuple[int, ...]],
        allow_missing: bool,
        files: Mapping[str, str] | None = None,
    ) -> "Report":
        """Compares the shapes that a model needs with those that there are; `files` has their names in the files.

        Raises `InputError` where a shape is wrong, where an encoder has arrays that BERT's hasn't, and where arrays are
        missing: of the encoder more than half, of the whole more than there is, or any at all unless `allow_missing`.
        """
        called = files or {name: name for name in there}
        wrong = [f"{called[n]} {there[n]}, not {shape}" for n, shape in wanted.items() if there.get(n, shape) != shape]
        missing = [name for name in wanted if name not in there]
        unused = sorted(called[name] for name in there if name not in wanted)
        encoder = [name for name in wanted if ENCODER.match(name)]
        lacking = [name for name in encoder if name not in there]
        if 2 * len(lacking) > len(encoder):
            needs = f"a BERT encoder has {_shown(encoder)}; in the files are {_shown(sorted(called.values()))}"
            raise InputError(f"{source}: {len(lacking)} of {len(encoder)} arrays of the encoder aren't there: {needs}")
        if wrong:
            raise InputError(f"{source}: doesn't fit its config: {_shown(wrong)}")
        if strange := [called[name] for name in there if ENCODER.match(name) and not _known(name, wanted)]:
            what = f"its encoder has arrays that BERT's hasn't, and computes something else: {_shown(strange)}"
            raise InputError(f"{source}: {what}; merge adapters into the weights, other encoders aren't read")
        if missing and not allow_missing:
            lacks = f"lacks {len(missing)} parameters of the model: {_shown(missing)}"
            others = f"; left over are {_shown(unused)}" if unused else ""
            raise InputError(f"{source}: {lacks}{others}; bert-jax import --allow-missing gives them fresh values")
        fresh, held = (sum(map(math.prod, shapes)) for shapes in ([wanted[name] for name in missing], there.values()))
        if fresh > max(held, FRESH):
            asks = f"its config asks for {fresh:,} numbers that aren't there, besides the {held:,} that are"
            raise InputError(f"{source}: {asks}; this isn't its config")
        return cls(missing, unused)

    def lines(self) -> list[str]:
        """For a person, nothing left out."""
        named = [("missing, given fresh values", self.missing), ("not used", self.unused)]
        return [*(f"{what}: {', '.join(names)}" for what, names in named if names), *self.notes]


def _known(name: str, wanted: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it is a parameter of the encoder, or an optimizer's moment of one: its name with another behind it."""
    return name in wanted or re.sub(r"/[^/]+$", "", name) in wanted


def _shown(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
