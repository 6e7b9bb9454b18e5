"""Types of the arrays that models, heads and losses take and return."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float, Num

AnyArray = Array | np.ndarray
"""An array that is only read, such as ids, masks and labels."""
Batch = Mapping[str, AnyArray]
"""The arrays of a batch by name: a model's inputs, and labels."""
Outputs = Float[Array, "..."] | tuple[Float[Array, "..."] | None, ...]
"""A head's outputs: an array if it has one output, else a tuple, with None for an output that its config leaves out."""
Sums = dict[str, Num[Array, ""]]
"""Sums and counts by name."""
