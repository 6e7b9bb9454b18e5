"""What every objective is."""

from typing import Any, ClassVar, Protocol

from jaxtyping import Array, Key

from bert_jax.models import Batch, Model, Sums


class Objective(Protocol):
    """What a training minimises. A frozen dataclass, and hashable: equal objectives share a compiled program."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __hash__(self) -> int: ...

    @property
    def model(self) -> Model:
        """The model that is trained."""

    @property
    def additive(self) -> bool:
        """Whether the sums of a batch are those of its parts added up. If not, as with in-batch negatives, a batch
        can't be accumulated from parts."""

    def constants(self) -> Any:
        """A tree of arrays that it needs beside the parameters, as a teacher's; () where it needs none. Asked for twice
        in a run, so what takes time is kept."""

    def counts(self, batch: Batch) -> Sums:
        """What divides each loss of a batch, by its name; known before any part of it is computed."""

    def sums(self, params: dict, constants: Any, batch: Batch, dropout_key: Key[Array, ""] | None = None) -> Sums:
        """For each name in `counts` its `_loss` (a sum), `_count` and, where there is one, `_correct`. All others are
        sums to log. Without a key there is no dropout."""
