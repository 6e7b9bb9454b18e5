"""BERT for JAX: pretrain, fine-tune, evaluate, predict, and move weights in and out."""

import importlib
from typing import TYPE_CHECKING, Any

from bert_jax.config import (
    CorpusConfig,
    ExamplesConfig,
    FinetuneConfig,
    InputError,
    MaskingConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    Phase,
    PretrainConfig,
    RunConfig,
    TaskConfig,
    TokenizerConfig,
    model_preset,
)
from bert_jax.config.files import load_config

__version__ = "0.1.0"

# Imported at their first use, because they import JAX, and TensorFlow or Orbax. No module of the package may have one
# of these names, since it would hide the function.
LATER = {
    "Bert": "bert_jax.inference.bert",
    "load": "bert_jax.inference.loading",
    "pretrain": "bert_jax.runs.pretraining",
    "finetune": "bert_jax.runs.finetuning",
    "evaluate": "bert_jax.runs.evaluation",
    "predict": "bert_jax.runs.prediction",
    "export": "bert_jax.convert.pretrained",
}
# Written out for type checkers, which only see these names.
__all__ = [
    "Bert",
    "CorpusConfig",
    "ExamplesConfig",
    "FinetuneConfig",
    "InputError",
    "MaskingConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Phase",
    "PretrainConfig",
    "RunConfig",
    "TaskConfig",
    "TokenizerConfig",
    "evaluate",
    "export",
    "finetune",
    "load",
    "load_config",
    "model_preset",
    "predict",
    "pretrain",
]

if TYPE_CHECKING:
    from bert_jax.convert.pretrained import export
    from bert_jax.inference.bert import Bert
    from bert_jax.inference.loading import load
    from bert_jax.runs.evaluation import evaluate
    from bert_jax.runs.finetuning import finetune
    from bert_jax.runs.prediction import predict
    from bert_jax.runs.pretraining import pretrain
else:

    def __getattr__(name: str) -> Any:
        if name not in LATER:
            raise AttributeError(f"module 'bert_jax' has no attribute {name!r}")
        return getattr(importlib.import_module(LATER[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
