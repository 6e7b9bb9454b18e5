"""The base class of all sections of a config."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Section:
    """Turns an int in a field of floats into a float: JAX takes no int of more than 32 bits."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, is_real = getattr(self, field.name), float in (field.type, *typing.get_args(field.type))
            if is_real and type(value) is int and abs(value) < 1 << 63:  # The checks refuse larger ints.
                object.__setattr__(self, field.name, float(value))
