"""Every setting of bert_jax, as frozen dataclasses. No default stands anywhere else.

A file in `configs/` builds a `PretrainConfig`; the command line overrides any field of it by its path
(`--optimizer.learning-rate 3e-4`); a checkpoint carries the whole of it as JSON.
"""

from bert_jax.config.finetuning import GLUE, FinetuneConfig, TaskConfig
from bert_jax.config.models import (
    PRESETS,
    VALUE,
    VOCABULARY_MULTIPLE,
    EmbeddingConfig,
    HeadConfig,
    ModelConfig,
    model_preset,
)
from bert_jax.config.pretraining import (
    CorpusConfig,
    ExamplesConfig,
    MaskingConfig,
    Phase,
    PretrainConfig,
    TokenizerConfig,
)
from bert_jax.config.training import MeshConfig, OptimizerConfig, RunConfig
from bert_jax.files.errors import InputError, first_line

__all__ = [
    "CorpusConfig",
    "EmbeddingConfig",
    "ExamplesConfig",
    "FinetuneConfig",
    "GLUE",
    "HeadConfig",
    "InputError",
    "MaskingConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PRESETS",
    "Phase",
    "PretrainConfig",
    "RunConfig",
    "TaskConfig",
    "TokenizerConfig",
    "VALUE",
    "VOCABULARY_MULTIPLE",
    "first_line",
    "model_preset",
]
