"""Which of several continuations of a text is the right one (arXiv 1810.04805, section 4.4)."""

from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import names
from bert_jax.models.heads.base import Classifier, Head, Inputs, Output


class MultipleChoice(Head):
    """The output is logits [B, C], from the pooled vectors of inputs [B, C, S].

    With several texts in a row, where a text's choices begin at the same position of C rows, it is [B, T, C].
    """

    kind = "multiple_choice"
    outputs = (Output("logits", "text"),)
    suffix, pipeline = "ForMultipleChoice", "multiple-choice"
    names = names.output("classifier/dense", "classifier")
    choices = True
    fixed = (1, "a choice's score")

    def pooler(self, head: HeadConfig) -> bool:
        return True

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Float[Array, "batch *texts choices"]:
        assert inputs.pooled is not None
        classifier = Classifier(config, self.size(head), head.dropout, name="classifier")
        logits = classifier(inputs.pooled, inputs.deterministic)
        # [B C, 1] -> [B, C], or [B C, T, 1] -> [B, C, T] -> [B, T, C]
        logits = logits.reshape(-1, inputs.choices, *logits.shape[1:-1])
        return logits if logits.ndim == 2 else logits.swapaxes(1, 2)

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        # [B C, 1] -> [B, C]
        logits = graph.node("Reshape", graph.dense(graph.pooler(hidden), "classifier"), graph.batch_and_choices())
        return {"logits": (logits, ["batch", "choices"])}
