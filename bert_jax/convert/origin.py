"""Where a model comes from (a run of bert_jax or a folder from elsewhere), and how a checkpoint says so, as JSON."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from bert_jax.config import EmbeddingConfig, FinetuneConfig, InputError, PretrainConfig
from bert_jax.config import files as config_files


@dataclass(frozen=True)
class Folder:
    """A folder from elsewhere."""

    source: str
    """Its name, as it was given."""
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    """How vectors of texts are made with the model."""
    config: ClassVar[None] = None


@dataclass(frozen=True)
class Run:
    """A run of bert_jax, at a step."""

    config: PretrainConfig | FinetuneConfig
    step: int
    scores: dict[str, float | None]
    """What was measured at the step, by name."""
    init: str | None
    """The model that its first parameters came from."""
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    """How vectors of texts are made with the model."""


class PretrainingRun(Run):
    config: PretrainConfig
    command = "pretrain"


class FinetuningRun(Run):
    config: FinetuneConfig
    command = "finetune"


Origin = Folder | PretrainingRun | FinetuningRun


def to_dict(origin: Origin) -> dict[str, Any]:
    """An origin as plain JSON values, which `from_dict` reads."""
    embedding = {"embedding": config_files.to_dict(origin.embedding)}
    if isinstance(origin, Folder):
        return {"source": origin.source} | embedding
    values = {"config": config_files.to_dict(origin.config), "step": origin.step, "metrics": origin.scores}
    return values | {"init": origin.init} | embedding


def from_dict(values: dict[str, Any]) -> Origin:
    """The origin that `to_dict` wrote. Raises `InputError` for unknown fields, and values that make no sense."""
    embedding = config_files.from_dict(EmbeddingConfig, values.get("embedding", {}), "embedding.").validate()
    config = config_files.config_of(values)
    if config is None:
        return Folder(values.get("source", "nowhere that is known"), embedding)
    if "step" not in values:
        raise InputError("step: missing beside config; import the model again")
    kind = FinetuningRun if isinstance(config, FinetuneConfig) else PretrainingRun
    return kind(config, values["step"], values.get("metrics", {}), values.get("init"), embedding)
