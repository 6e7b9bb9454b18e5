"""Where in a text the answer to a question starts and ends (arXiv 1810.04805, section 4.2)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import names
from bert_jax.models.arrays import Batch, Sums
from bert_jax.models.heads.base import NO_LABEL, Classifier, Head, Inputs, Output


class QuestionAnswering(Head):
    """The output is two logits for each token, [B, S, 2]: the answer starts there, it ends there. Without dropout."""

    kind = "question_answering"
    outputs = (Output("logits", "token"),)
    use = "answer"
    suffix, pipeline = "ForQuestionAnswering", "question-answering"
    names = names.output("classifier/dense", "qa_outputs", "cls/squad/")
    fixed = (2, "an answer's start and end")
    shown_by = ("qa_outputs.weight",)
    shown_by_tf1 = ("cls/squad/output_weights",)

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Float[Array, "batch length 2"]:
        return Classifier(config, self.size(head), 0.0, name="classifier")(inputs.hidden, inputs.deterministic)

    def no_labels(self, head: HeadConfig, rows: int, length: int, texts: int) -> np.ndarray:
        """int32 [rows, texts, 2], for positions in the row."""
        return np.full((rows, texts, 2), NO_LABEL, np.int32)

    def write_label(self, labels: np.ndarray, text: int, start: int, label: Any) -> None:
        labels[text] = np.add(label, start)

    def sums(self, head: HeadConfig, outputs: Float[Array, "batch length 2"], batch: Batch) -> Sums:
        """The loss is the mean of the losses of start and end, each a softmax over the text's own tokens."""
        texts = batch["labels"].shape[1]
        # [B, S] -> [B, T, 1, S]
        own = batch["sequence_ids"][:, None, None] == jnp.arange(texts)[:, None, None]
        # [B, S, 2] -> [B, 1, 2, S] -> [B, T, 2, S]
        logits = jnp.where(own, jnp.swapaxes(outputs, 1, 2)[:, None], jnp.finfo(outputs.dtype).min)
        return super().sums(head, logits, batch)

    def named(self, outputs, config: ModelConfig) -> dict[str, Array]:
        return {"start_logits": outputs[..., 0], "end_logits": outputs[..., 1]}

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        both = graph.dense(hidden, "qa_outputs")  # [B, S, 2]
        ends = {"start_logits": graph.pick(both, 0, axis=2), "end_logits": graph.pick(both, 1, axis=2)}
        return {name: (value, ["batch", "sequence"]) for name, value in ends.items()}
