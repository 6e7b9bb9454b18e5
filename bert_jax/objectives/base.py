"""What every objective has."""

from typing import Any, ClassVar, Protocol

from jaxtyping import Array, Key

from bert_jax.models import Batch, Model, Sums


class Objective(Protocol):
    """What training minimises. A frozen, hashable dataclass: equal objectives share a compiled program."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __hash__(self) -> int: ...

    @property
    def model(self) -> Model:
        """The model that is trained."""

    @property
    def additive(self) -> bool:
        """Whether the sums of a batch are the sums of its parts added up. If not, as with in-batch negatives, gradients
        can't be accumulated over parts of a batch."""

    def constants(self) -> Any:
        """A tree of arrays that it needs besides the parameters, such as a teacher's; () if it needs none. Called twice
        in a run, so cache what takes time."""

    def counts(self, batch: Batch) -> Sums:
        """The divisor of each loss of a batch, by the loss's name; known before any part of the batch is computed."""

    def sums(self, params: dict, constants: Any, batch: Batch, dropout_key: Key[Array, ""] | None = None) -> Sums:
        """For each name in `counts` the sums `_loss` and `_count` and, optionally, `_correct`; any others are sums to
        log. Without a key there is no dropout."""
