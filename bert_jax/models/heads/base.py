"""What every kind of head knows of itself. A kind is one file beside this one, and one line in `bert_jax.models`.

Shapes in comments: B batch, S sequence, C choices, T texts of a row, K masked positions, H hidden, V vocabulary.
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

# A token that has no label, as a word's second piece.
NO_LABEL = -100


class Output(NamedTuple):
    """One of a head's outputs."""

    name: str
    """In exports, as Hugging Face has it."""
    each: Literal["text", "token", "prediction"]
    """What it has an entry for; predictions are the masked positions."""


class Inputs(NamedTuple):
    """What a head computes its outputs from."""

    hidden: Float[Array, "rows length hidden"]
    """Each choice of an example is a row of its own."""
    pooled: Float[Array, "rows *texts hidden"] | None
    """None where the head has no pooler."""
    attention_mask: Int[AnyArray, "rows length"]
    """1 for a token, 0 for padding."""
    sequence_ids: Int[AnyArray, "rows length"] | None
    """The number of each token's text in its row, -1 for padding; None where a row has one text."""
    first_tokens: Int[AnyArray, "rows texts"] | None
    """Positions at which a row's texts begin; None where it has one."""
    word_embeddings: Float[Array, "vocabulary hidden"] | None
    """None where the head doesn't predict."""
    masked_lm_positions: Int[AnyArray, "rows predictions"] | None
    """None where the head doesn't predict."""
    choices: int
    """Rows of an example."""
    deterministic: bool


class Head:
    """A kind of head, without state: its module, labels, loss, outputs, and the names of its parameters."""

    kind: str
    outputs: tuple[Output, ...]
    use: str | None = None
    """The method of `bert_jax.Bert` that gives what it is for."""
    suffix: str
    """Of its class in transformers, behind the architecture's name: ForMaskedLM."""
    pipeline: str
    """Its task on the Hugging Face Hub."""
    names: tuple[Name, ...] = ()
    """Of its parameters, beside the encoder's."""
    logical_axes: LogicalAxes = (
        (r"classifier/\w+/kernel", ("hidden", None)),
        (r"classifier/\w+/bias", (None,)),
    )
    """What each dimension of its parameters is, as `Architecture.logical_axes`."""
    shown_by: tuple[str, ...] | None = None
    """Parameters, by Hugging Face's names, that show a head of this kind where nothing names it; None: none do. For
    {encoder} the architecture's name is put."""
    shown_by_tf1: tuple[str, ...] | None = None
    """The same for variables of google-research/bert."""
    labelled: bool = False
    """Whether it has an output for each label of its config."""
    fixed: tuple[int, str] | None = None
    """Of kinds with a fixed number of outputs for each entry: how many, and what they are."""
    typed: bool = False
    """Whether `problem_type` and `activation` say what its outputs are."""
    choices: bool = False
    """Whether its inputs are [B, C, S]."""
    predicts: bool = False
    """Whether it scores the vocabulary at `masked_lm_positions`."""
    tied: tuple[tuple[str, str], ...] = ()
    """Arrays that Hugging Face's files may have twice: the second name, and that of the parameter, as in `shown_by`."""

    def pooler(self, head: HeadConfig) -> bool:
        """Whether it reads the pooled vector."""
        return False

    def size(self, head: HeadConfig) -> int:
        """Numbers in an entry of its first output, where the vocabulary doesn't decide that."""
        return self.fixed[0] if self.fixed else len(head.labels)

    def logits(self, config: ModelConfig, head: HeadConfig, inputs: Inputs) -> Outputs:
        """Its outputs, float32. Called in the model's compact method."""
        raise NotImplementedError

    def unsaid(self, head: HeadConfig) -> bool:
        """Whether nothing says what its one output is."""
        return False

    # ---- Labels: in a batch of rows of several texts, and what is learned from them ----------------------------------

    def no_labels(self, head: HeadConfig, rows: int, length: int, texts: int) -> np.ndarray:
        """Labels of a batch in which nothing has any: int32 [rows, texts], one for each text."""
        return np.full((rows, texts), NO_LABEL, np.int32)

    def write_label(self, labels: np.ndarray, text: int, start: int, label: Any) -> None:
        """Writes a feature's label into those of its row: of the row's text of that number, which begins at `start`."""
        labels[text] = label

    def sums(self, head: HeadConfig, outputs, batch: Batch) -> Sums:
        """Sums and counts of the losses of a batch, as of `losses.cross_entropy`."""
        return losses.cross_entropy_of_labels("label", outputs, batch["labels"])

    def counts(self, batch: Batch) -> Sums:
        """What divides each loss of a batch, by its name; known before any part of it is computed."""
        return {"label": losses.count_of_labels(batch["labels"])}

    # ---- Exports ----------------------------------------------------------------------------------------------------

    def named(self, outputs, config: ModelConfig) -> dict[str, Array]:
        """Its outputs by their names in exports; scores of the vocabulary without the rows that fill it up."""
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        return {
            output.name: value[..., : config.vocab_size] if output.each == "prediction" else value
            for output, value in zip(self.outputs, values, strict=True)
            if value is not None
        }

    def graph(self, graph: Any, head: HeadConfig, hidden: str) -> dict[str, tuple[str, list]]:
        """Its outputs in an ONNX graph (`convert.onnx.Graph`), of the encoder's hidden states: name -> value, shape."""
        raise InputError(f"--format onnx: a head of the kind {self.kind} has no graph; choose another format")


class Classifier(nn.Module):
    """Dropout and a product to `outputs` float32 numbers."""

    config: ModelConfig
    outputs: int
    dropout: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*entries hidden"], deterministic: bool) -> Float[Array, "*entries outputs"]:
        rate = self.config.hidden_dropout_prob if self.dropout is None else self.dropout
        x = Dropout(rate)(x, deterministic=deterministic)
        return nn.Dense(self.outputs, kernel_init=initializer(self.config), name="dense")(x.astype(jnp.float32))
