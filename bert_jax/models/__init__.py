"""Models: architectures and kinds of heads, each a value that holds all that is known of it, and their Flax modules."""

from bert_jax.models.architecture import Architecture
from bert_jax.models.arrays import Batch, Outputs, Sums
from bert_jax.models.heads.alone import Alone
from bert_jax.models.heads.base import Head
from bert_jax.models.heads.masked_lm import MaskedLM
from bert_jax.models.heads.multiple_choice import MultipleChoice
from bert_jax.models.heads.pretraining import Pretraining
from bert_jax.models.heads.question_answering import QuestionAnswering
from bert_jax.models.heads.sequence_classification import SequenceClassification
from bert_jax.models.heads.token_classification import TokenClassification
from bert_jax.models.model import Model, forward, in_compute_type, init_params, make_model, param_shapes
from bert_jax.models.registry import ARCHITECTURES, HEADS, architecture_of, head_of, heads_of, kind_of

__all__ = [
    "ARCHITECTURES",
    "HEADS",
    "Alone",
    "Architecture",
    "Batch",
    "Head",
    "MaskedLM",
    "Model",
    "MultipleChoice",
    "Outputs",
    "Pretraining",
    "QuestionAnswering",
    "SequenceClassification",
    "Sums",
    "TokenClassification",
    "architecture_of",
    "forward",
    "head_of",
    "heads_of",
    "in_compute_type",
    "init_params",
    "kind_of",
    "make_model",
    "param_shapes",
]
