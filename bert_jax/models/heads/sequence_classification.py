"""A class, any number of labels, or a value for a text or a pair of texts (arXiv 1810.04805, section 4.1)."""

import functools

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import losses, names
from bert_jax.models.arrays import Batch, Sums
from bert_jax.models.heads.base import Classifier, Head, Inputs, Output


class SequenceClassification(Head):
    """The output is logits [B, labels], from the pooled vector; with several texts in a row, [B, T, labels].

    `HeadConfig.outputs` says what they are. The loss is the cross-entropy of the softmax for classes, the binary
    cross-entropy of the sigmoid for labels, and the squared error for values.
    """

    kind = "sequence_classification"
    outputs = (Output("logits", "text"),)
    use = "classify"
    suffix, pipeline = "ForSequenceClassification", "text-classification"
    names = names.output("classifier/dense", "classifier")
    shown_by: tuple[str, ...] | None = ("classifier.weight", "{encoder}.pooler.dense.weight")
    shown_by_tf1 = ("output_weights", "bert/pooler/dense/kernel")
    labelled = typed = True

    def pooler(self, head: HeadConfig) -> bool:
        return True

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Float[Array, "batch *texts labels"]:
        assert inputs.pooled is not None
        classifier = Classifier(config, self.size(head), head.dropout, name="classifier")
        return classifier(inputs.pooled, inputs.deterministic)

    def unsaid(self, head: HeadConfig) -> bool:
        """Whether nothing says what a single output is: transformers trains it as a value, but shows its sigmoid."""
        return len(head.labels) == 1 and head.problem_type is None and head.activation is None

    def no_labels(self, head: HeadConfig, rows: int, length: int, texts: int) -> np.ndarray:
        """int32 [rows, texts] for classes; float32, for one value [rows, texts], else [rows, texts, labels]."""
        if head.outputs == "classes":
            return super().no_labels(head, rows, length, texts)
        return np.full((rows, texts, *self._several(head)), np.nan, np.float32)

    def _several(self, head: HeadConfig) -> tuple[int, ...]:
        return (self.size(head),) if head.outputs == "labels" or self.size(head) > 1 else ()

    def sums(self, head: HeadConfig, outputs: Float[Array, "batch texts labels"], batch: Batch) -> Sums:
        labels = batch["labels"]
        if head.outputs == "classes":
            return super().sums(head, outputs, batch)
        logits = outputs if self._several(head) else outputs[..., 0]
        if head.outputs == "values":
            return losses.sum_over_values("label", lambda values: (logits - values) ** 2, labels)
        right = jnp.sum(((logits > 0) == (labels > 0.5)) & ~jnp.isnan(labels), dtype=jnp.float32)
        binary = functools.partial(optax.sigmoid_binary_cross_entropy, logits)
        return losses.sum_over_values("label", binary, labels) | {"label_correct": right}

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        logits = graph.dense(graph.pooler(hidden), "classifier")
        return {"logits": (logits, ["batch", self.size(head)])}
