"""What bert_jax knows about a kind of head. Each kind is a file beside this one and a line in `models/registry.py`.

Shapes in comments: B batch, S sequence, C choices, T texts in a row, K masked positions, H hidden, V vocabulary.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bert_jax.config import HeadConfig, InputError, ModelConfig
from bert_jax.models import losses
from bert_jax.models.arrays import AnyArray, Batch, Outputs, Sums
from bert_jax.models.dropout import Dropout
from bert_jax.models.layers import initializer
from bert_jax.models.names import LogicalAxes, Name

# The label of a token that has none, such as a word's second piece.
NO_LABEL = -100


class Output(NamedTuple):
    """One of a head's outputs."""

    name: str
    """The output's name in exports, as in Hugging Face's models."""
    each: Literal["text", "token", "prediction"]
    """What each entry of the output is for; predictions are the masked positions."""


class Inputs(NamedTuple):
    """The values from which a head computes its outputs."""

    hidden: Float[Array, "rows length hidden"]
    """Each choice of an example is a row of its own."""
    pooled: Float[Array, "rows *texts hidden"] | None
    """None if the head has no pooler."""
    attention_mask: Int[AnyArray, "rows length"]
    """1 for a token, 0 for padding."""
    sequence_ids: Int[AnyArray, "rows length"] | None
    """The number of each token's text in its row, -1 for padding; None if a row has one text."""
    first_tokens: Int[AnyArray, "rows texts"] | None
    """The positions at which a row's texts begin; None if a row has one text."""
    word_embeddings: Float[Array, "vocabulary hidden"] | None
    """None if the head doesn't score the vocabulary."""
    masked_lm_positions: Int[AnyArray, "rows predictions"] | None
    """None if the head doesn't score the vocabulary."""
    choices: int
    """The number of rows for each example."""
    deterministic: bool


class Head:
    """A kind of head, without state: its module, labels, loss, outputs, and the names of its parameters."""

    kind: str
    outputs: tuple[Output, ...]
    use: str | None = None
    """The method of `bert_jax.Bert` that uses this kind of head; None: no method does."""
    suffix: str
    """How its class's name in transformers ends, after the architecture's prefix: ForMaskedLM."""
    pipeline: str
    """The name of its task on the Hugging Face Hub."""
    names: tuple[Name, ...] = ()
    """The names of its parameters, without the encoder's."""
    logical_axes: LogicalAxes = (
        (r"classifier/\w+/kernel", ("hidden", None)),
        (r"classifier/\w+/bias", (None,)),
    )
    """What each dimension of its parameters is, in the form of `Architecture.logical_axes`."""
    shown_by: tuple[str, ...] | None = None
    """Parameters, by Hugging Face's names, that show a head of this kind if nothing names it; None: none do. {encoder}
    stands for the architecture's name."""
    shown_by_tf1: tuple[str, ...] | None = None
    """The same for variables of google-research/bert."""
    labelled: bool = False
    """Whether it has an output for each label of its config."""
    fixed: tuple[int, str] | None = None
    """For kinds with a fixed number of outputs for each entry: this number, and what the outputs are."""
    typed: bool = False
    """Whether `problem_type` and `activation` say what its outputs are."""
    choices: bool = False
    """Whether its inputs are [B, C, S]."""
    predicts: bool = False
    """Whether it scores the vocabulary at `masked_lm_positions`."""
    tied: tuple[tuple[str, str], ...] = ()
    """Arrays that Hugging Face's files may hold twice: the second name and the parameter's name, as in `shown_by`."""

    def pooler(self, head: HeadConfig) -> bool:
        """Whether it reads the pooled vector."""
        return False

    def size(self, head: HeadConfig) -> int:
        """How many numbers an entry of its first output has; not for heads that score the vocabulary."""
        return self.fixed[0] if self.fixed else len(head.labels)

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Outputs:
        """Its outputs, float32. Called in the model's compact method."""
        raise NotImplementedError

    def unsaid(self, head: HeadConfig) -> bool:
        """Whether its one output could be a score or a value, since nothing says which."""
        return False

    # ---- Labels: in a batch with several texts in a row, and the losses from them ----------------------------------

    def no_labels(self, head: HeadConfig, rows: int, length: int, texts: int) -> np.ndarray:
        """The labels of a batch before any is written: int32 [rows, texts], one for each text."""
        return np.full((rows, texts), NO_LABEL, np.int32)

    def write_label(self, labels: np.ndarray, text: int, start: int, label: Any) -> None:
        """Writes a label into the labels of a row: that of the row's text number `text`, which begins at `start`."""
        labels[text] = label

    def sums(self, head: HeadConfig, outputs, batch: Batch) -> Sums:
        """The sums and counts of a batch's losses, in the form of `losses.cross_entropy`."""
        return losses.cross_entropy_of_labels("label", outputs, batch["labels"])

    def counts(self, batch: Batch) -> Sums:
        """The divisor of each loss of a batch, by the loss's name; known before any part of the batch is computed."""
        return {"label": losses.count_of_labels(batch["labels"])}

    # ---- Exports ----------------------------------------------------------------------------------------------------

    def named(self, outputs, config: ModelConfig) -> dict[str, Array]:
        """Its outputs by their names in exports; scores of the vocabulary without its padding."""
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        return {
            output.name: value[..., : config.vocab_size] if output.each == "prediction" else value
            for output, value in zip(self.outputs, values, strict=True)
            if value is not None
        }

    def graph(self, graph: Any, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        """Adds the head to an ONNX graph (`convert.onnx.Graph`); returns name -> value, shape of its outputs."""
        raise InputError(f"--format onnx: a head of the kind {self.kind} has no graph; choose another format")


class Classifier(nn.Module):
    """Dropout and a dense layer with `outputs` float32 outputs."""

    config: ModelConfig
    outputs: int
    dropout: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*entries hidden"], deterministic: bool) -> Float[Array, "*entries outputs"]:
        rate = self.config.hidden_dropout_prob if self.dropout is None else self.dropout
        x = Dropout(rate)(x, deterministic=deterministic)
        return nn.Dense(self.outputs, kernel_init=initializer(self.config), name="dense")(x.astype(jnp.float32))
