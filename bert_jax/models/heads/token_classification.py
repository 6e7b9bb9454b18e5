"""A class for each token, such as the type of a name in a text (arXiv 1810.04805, section 5.3)."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import names
from bert_jax.models.heads.base import NO_LABEL, Classifier, Head, Inputs, Output


class TokenClassification(Head):
    """The output is logits [B, S, labels]."""

    kind = "token_classification"
    outputs = (Output("logits", "token"),)
    use = "tag"
    suffix, pipeline = "ForTokenClassification", "token-classification"
    names = names.output("classifier/dense", "classifier")
    shown_by = ("classifier.weight",)
    shown_by_tf1 = ("output_weights",)
    labelled = True

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Float[Array, "batch length labels"]:
        classifier = Classifier(config, self.size(head), head.dropout, name="classifier")
        return classifier(inputs.hidden, inputs.deterministic)

    def no_labels(self, head: HeadConfig, rows: int, length: int, texts: int) -> np.ndarray:
        """int32 [rows, length], a label for each token."""
        return np.full((rows, length), NO_LABEL, np.int32)

    def write_label(self, labels: np.ndarray, text: int, start: int, label: Any) -> None:
        labels[start : start + len(label)] = label

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        return {"logits": (graph.dense(hidden, "classifier"), ["batch", "sequence", self.size(head)])}
