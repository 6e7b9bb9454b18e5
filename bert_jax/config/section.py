"""What all sections of a config have in common."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Section:
    """Whole numbers become real ones where these belong: JAX takes no whole one of more than 32 bits."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, is_real = getattr(self, field.name), float in (field.type, *typing.get_args(field.type))
            if is_real and type(value) is int and abs(value) < 1 << 63:  # Larger ones are refused by the checks.
                object.__setattr__(self, field.name, float(value))
