"""BERT for JAX: pretrain, fine-tune, evaluate, predict, and move weights in and out."""

from bert_jax.config import InputError, ModelConfig, PretrainConfig, model_preset
from bert_jax.config_files import load_config

__version__ = "0.1.0"
__all__ = ["InputError", "ModelConfig", "PretrainConfig", "load", "load_config", "model_preset", "pretrain"]


def __getattr__(name: str):
    """`load` and `pretrain` are imported when first asked for: they bring JAX, and TensorFlow or Orbax, with them."""
    if name == "load":
        from bert_jax.inference import load

        return load
    if name == "pretrain":
        from bert_jax.pretrain import pretrain

        return pretrain
    raise AttributeError(f"module 'bert_jax' has no attribute {name!r}")
