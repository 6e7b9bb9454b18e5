"""The masked language model (arXiv 1810.04805, section 3.1)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models import losses, names
from bert_jax.models.arrays import Batch, Outputs, Sums
from bert_jax.models.heads.base import Head, Inputs, Output
from bert_jax.models.layers import ACTIVATIONS, bfloat16_product, dense, layer_norm
from bert_jax.models.names import LogicalAxes

AT = "cls/predictions"


class Transform(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "batch predictions hidden"]) -> Float[Array, "batch predictions hidden"]:
        x = dense(self.config, self.config.hidden_size, "dense")(x)
        return layer_norm(self.config)(ACTIVATIONS[self.config.hidden_act](x))


class Predictions(nn.Module):
    """Scores the vocabulary at the masked positions, with the word embeddings as output weights and one bias.

    The padding of the vocabulary gets the lowest score: its probability is 0, and no loss gives it a gradient.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: Inputs) -> Float[Array, "batch predictions vocabulary"]:
        c = self.config
        assert inputs.masked_lm_positions is not None and inputs.word_embeddings is not None
        # [B, S, H] -> [B, K, H]: only the masked positions are multiplied with the vocabulary.
        x = jnp.take_along_axis(inputs.hidden, inputs.masked_lm_positions[..., None], axis=1)
        x = Transform(c, name="transform")(x)
        bias = self.param("output_bias", nn.initializers.zeros, (c.padded_vocab_size,), jnp.float32)
        # [B, K, H] x [V, H] -> [B, K, V]
        weights = inputs.word_embeddings.astype(x.dtype)
        if c.dtype == "bfloat16_products":
            logits = bfloat16_product(x, weights, 1)
        else:
            logits = jnp.einsum("bkh,vh->bkv", x, weights, preferred_element_type=jnp.float32)
        return jnp.where(
            jnp.arange(c.padded_vocab_size) < c.known_vocab_size, logits + bias, jnp.finfo(jnp.float32).min
        )


class Heads(nn.Module):
    """The predictions, under the name that the original gives to its heads."""

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: Inputs) -> Float[Array, "batch predictions vocabulary"]:
        return Predictions(self.config, name="predictions")(inputs)


class MaskedLM(Head):
    """The output is the scores of the vocabulary at the masked positions, [B, K, V]."""

    kind = "masked_lm"
    outputs: tuple[Output, ...] = (Output("logits", "prediction"),)
    use = "fill_mask"
    suffix, pipeline = "ForMaskedLM", "fill-mask"
    names = (
        *names.dense(f"{AT}/transform/dense", "cls.predictions.transform.dense", f"{AT}/transform/dense"),
        *names.norm(f"{AT}/transform/LayerNorm", "cls.predictions.transform.LayerNorm", f"{AT}/transform/LayerNorm"),
        names.Name(f"{AT}/output_bias", "cls.predictions.bias", f"{AT}/output_bias", padded=True),
    )
    logical_axes: LogicalAxes = ((r"transform/dense/kernel", ("hidden", None)), (r"output_bias", ("vector",)))
    shown_by = ("cls.predictions.transform.dense.weight",)
    shown_by_tf1 = ("cls/predictions/transform/dense/kernel",)
    tied = (
        ("cls.predictions.decoder.weight", "{encoder}.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    )
    predicts = True

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Outputs:
        return Heads(config, name="cls")(inputs)

    def sums(self, head: HeadConfig, outputs, batch: Batch) -> Sums:
        return losses.cross_entropy("mlm", outputs, batch["masked_lm_ids"], batch["masked_lm_weights"])

    def counts(self, batch: Batch) -> Sums:
        return {"mlm": jnp.sum(batch["masked_lm_weights"]) + losses.EPSILON}

    def graph(self, graph, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        return {"logits": (self.predictions(graph, hidden), ["batch", "sequence", graph.config.vocab_size])}

    def predictions(self, graph, hidden: str) -> str:
        """Adds the scores at all positions to an ONNX graph; returns their name."""
        at = "cls.predictions"
        x = graph.norm(graph.gelu(graph.dense(hidden, f"{at}.transform.dense")), f"{at}.transform.LayerNorm")
        return graph.product(x, graph.word_embeddings, f"{at}.bias")
