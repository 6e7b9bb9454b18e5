"""The masked language model and next-sentence prediction (arXiv 1810.04805, section 3.1)."""

import flax.linen as nn
from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import losses, names
from bert_jax.models.arrays import Batch, Sums
from bert_jax.models.heads.base import Inputs, Output
from bert_jax.models.heads.masked_lm import MaskedLM, Predictions
from bert_jax.models.layers import initializer


class BothHeads(nn.Module):
    """The predictions, and the logits of next-sentence prediction."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, inputs: Inputs
    ) -> tuple[Float[Array, "batch predictions vocabulary"], Float[Array, "batch *texts 2"]]:
        assert inputs.pooled is not None
        next_sentence = nn.Dense(2, kernel_init=initializer(self.config), name="seq_relationship")
        return Predictions(self.config, name="predictions")(inputs), next_sentence(inputs.pooled)


class Pretraining(MaskedLM):
    """The outputs are the scores of `MaskedLM`, and logits [B, 2]: class 0 if B follows A, class 1 if B is random."""

    kind = "pretraining"
    outputs = (Output("prediction_logits", "prediction"), Output("seq_relationship_logits", "text"))
    suffix = "ForPreTraining"
    names = (*MaskedLM.names, *names.output("cls/seq_relationship", "cls.seq_relationship", "cls/seq_relationship/"))
    logical_axes = (
        *MaskedLM.logical_axes,
        (r"seq_relationship/kernel", ("hidden", None)),
        (r"seq_relationship/bias", (None,)),
    )
    shown_by = ("cls.seq_relationship.weight",)
    shown_by_tf1 = ("cls/seq_relationship/output_weights",)

    def pooler(self, head: HeadConfig) -> bool:
        return True

    def logits(
        self, config: ModelConfig, head: HeadConfig, inputs: Inputs
    ) -> tuple[Float[Array, "batch predictions vocabulary"], Float[Array, "batch *texts 2"]]:
        return BothHeads(config, name="cls")(inputs)

    def sums(self, head: HeadConfig, outputs, batch: Batch) -> Sums:
        """The losses of both heads; a row of padding has no next-sentence label."""
        token_scores, pair_logits = outputs
        next_sentence = losses.cross_entropy_of_labels("nsp", pair_logits, batch["next_sentence_labels"])
        return super().sums(head, token_scores, batch) | next_sentence

    def counts(self, batch: Batch) -> Sums:
        return super().counts(batch) | {"nsp": losses.count_of_labels(batch["next_sentence_labels"])}

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        next_sentence = graph.dense(graph.pooler(hidden), "cls.seq_relationship")
        return {
            "prediction_logits": (self.predictions(graph, hidden), ["batch", "sequence", graph.config.vocab_size]),
            "seq_relationship_logits": (next_sentence, ["batch", 2]),
        }
