"""The heads in which RoBERTa differs from BERT, with Hugging Face's names."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import names
from bert_jax.models.dropout import Dropout
from bert_jax.models.encoder import first_vectors
from bert_jax.models.heads.base import Inputs
from bert_jax.models.heads.masked_lm import MaskedLM, Predictions
from bert_jax.models.heads.sequence_classification import SequenceClassification
from bert_jax.models.layers import dense, initializer


class RobertaMaskedLM(MaskedLM):
    """BERT's head, with other names of the parameters."""

    names = (
        *names.dense("lm_head/transform/dense", "lm_head.dense"),
        *names.norm("lm_head/transform/LayerNorm", "lm_head.layer_norm"),
        names.Name("lm_head/output_bias", "lm_head.bias", "", padded=True),
    )
    shown_by = ("lm_head.dense.weight",)
    tied = (
        ("lm_head.decoder.weight", "{encoder}.embeddings.word_embeddings.weight"),
        ("lm_head.decoder.bias", "lm_head.bias"),
    )

    def logits(
        self, config: ModelConfig, head: HeadConfig, inputs: Inputs
    ) -> Float[Array, "batch predictions vocabulary"]:
        return Predictions(config, name="lm_head")(inputs)

    def predictions(self, graph, hidden: str) -> str:
        x = graph.norm(graph.gelu(graph.dense(hidden, "lm_head.dense")), "lm_head.layer_norm")
        return graph.product(x, graph.word_embeddings, "lm_head.bias")


class ClassificationHead(nn.Module):
    """Dropout, a dense layer with tanh, dropout and a dense layer, on the vector of a text's first token."""

    config: ModelConfig
    head: HeadConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*entries hidden"], deterministic: bool) -> Float[Array, "*entries labels"]:
        c = self.config
        rate = c.hidden_dropout_prob if self.head.dropout is None else self.head.dropout
        x = Dropout(rate, name="dropout")(x, deterministic=deterministic)
        x = jnp.tanh(dense(c, c.hidden_size, "dense")(x))
        x = Dropout(rate, name="out_dropout")(x, deterministic=deterministic)
        out = nn.Dense(len(self.head.labels), kernel_init=initializer(c), name="out_proj")
        return out(x.astype(jnp.float32))


class RobertaClassification(SequenceClassification):
    """Classification from the first token's vector, without the encoder's pooler."""

    names = (
        *names.dense("classifier/dense", "classifier.dense"),
        *names.dense("classifier/out_proj", "classifier.out_proj"),
    )
    shown_by = ("classifier.out_proj.weight",)

    def pooler(self, head: HeadConfig) -> bool:
        return False

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Float[Array, "batch *texts labels"]:
        first = first_vectors(inputs.hidden, inputs.first_tokens)
        return ClassificationHead(config, head, name="classifier")(first, inputs.deterministic)

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        dense = graph.node("Tanh", graph.dense(graph.pick(hidden, 0, axis=1), "classifier.dense"))
        return {"logits": (graph.dense(dense, "classifier.out_proj"), ["batch", self.size(head)])}
