"""What fits a model of the arrays that were found, and what doesn't."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bert_jax.config import InputError

# Of each list, an error names so many.
SHOWN = 5


@dataclass(frozen=True)
class Report:
    """Names of arrays, as they are called in the files."""

    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """They are there, and no part of the model."""
    wrong_shape: list[str] = field(default_factory=list)
    """Each with its shape, and that of the model."""
    notes: list[str] = field(default_factory=list)
    """What else was decided, each in a few words."""

    @classmethod
    def of(cls, wanted: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]]) -> "Report":
        """Compares the shapes that a model needs with those that there are."""
        differ = [name for name, shape in wanted.items() if there.get(name, shape) != shape]
        return cls(
            missing=[name for name in wanted if name not in there],
            unused=sorted(name for name in there if name not in wanted),
            wrong_shape=[f"{name} {there[name]}, not {wanted[name]}" for name in differ],
        )

    def check(self, source: Path, allow_missing: bool) -> None:
        """Raises `InputError` where a shape is wrong, or arrays are missing and not allowed to be."""
        if self.wrong_shape:
            raise InputError(f"{source}: doesn't fit its config: {_shown(self.wrong_shape)}")
        if self.missing and not allow_missing:
            lacks = f"lacks {len(self.missing)} parameters of the model: {_shown(self.missing)}"
            raise InputError(f"{source}: {lacks}; bert-jax import --allow-missing gives them fresh values")

    def lines(self) -> list[str]:
        """For a person, nothing left out."""
        named = [("missing, given fresh values", self.missing), ("not used", self.unused)]
        return [*(f"{what}: {', '.join(names)}" for what, names in named if names), *self.notes]


def _shown(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
