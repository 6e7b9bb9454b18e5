"""The encoder and its heads: Flax Linen modules, pure functions of (params, arrays)."""

from bert_jax.models.encoder import BertEncoder
from bert_jax.models.heads import BertForPreTraining, init_params, make_model

__all__ = ["BertEncoder", "BertForPreTraining", "init_params", "make_model"]
