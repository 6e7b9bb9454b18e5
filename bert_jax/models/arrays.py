"""Types of the arrays that go into models, heads and losses, and that come out."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float, Num

AnyArray = Array | np.ndarray
"""What is only read, as ids, masks and labels."""
Batch = Mapping[str, AnyArray]
"""Arrays of a batch by their names: a model's inputs, and labels."""
Outputs = Float[Array, "..."] | tuple[Float[Array, "..."] | None, ...]
"""What a head gives: an array where it has a single output, else a tuple; None for one that its config leaves out."""
Sums = dict[str, Num[Array, ""]]
"""Sums and counts by their names."""
