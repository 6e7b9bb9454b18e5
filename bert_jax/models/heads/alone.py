"""No head: the encoder alone."""

from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models.heads.base import Head, Inputs, Output


class Alone(Head):
    """The outputs are the hidden states [B, S, H] and, if the config has the pooler, the pooled vectors [B, H]."""

    kind = "encoder"
    outputs = (Output("last_hidden_state", "token"), Output("pooler_output", "text"))
    suffix, pipeline = "Model", "feature-extraction"
    shown_by = shown_by_tf1 = ()

    def pooler(self, head: HeadConfig) -> bool:
        return head.pooler

    def logits(
        self, config: ModelConfig, head: HeadConfig, inputs: Inputs
    ) -> tuple[Float[Array, "batch length hidden"], Float[Array, "batch *texts hidden"] | None]:
        return inputs.hidden, inputs.pooled

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        width = graph.config.hidden_size
        pooled = {"pooler_output": (graph.pooler(hidden), ["batch", width])} if head.pooler else {}
        return {"last_hidden_state": (hidden, ["batch", "sequence", width])} | pooled
