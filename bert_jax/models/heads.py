"""Heads on the encoder.

Shapes in comments: B batch, S sequence, C choices, K masked positions, H hidden, V vocabulary, padded.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.models.dropout import Dropout
from bert_jax.models.encoder import ACTIVATIONS, BertEncoder, dense, initializer, layer_norm


class Transform(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        x = dense(self.config, self.config.hidden_size, "dense")(x)
        return layer_norm(self.config)(ACTIVATIONS[self.config.hidden_act](x))


class MaskedLM(nn.Module):
    """Scores the vocabulary at the masked positions, with the word embeddings as output weights and one bias.

    The rows that fill up the vocabulary score the least: no softmax gives them a share, and no loss a gradient.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, hidden, masked_lm_positions, word_embeddings):
        c = self.config
        # [B, S, H] -> [B, K, H]: only the positions to predict meet the vocabulary.
        x = jnp.take_along_axis(hidden, masked_lm_positions[..., None], axis=1)
        x = Transform(c, name="transform")(x)
        bias = self.param("output_bias", nn.initializers.zeros, (c.padded_vocab_size,), jnp.float32)
        # [B, K, H] x [V, H] -> [B, K, V]
        weights = word_embeddings.astype(x.dtype)
        logits = jnp.einsum("bkh,vh->bkv", x, weights, preferred_element_type=jnp.float32) + bias
        return jnp.where(jnp.arange(c.padded_vocab_size) < c.vocab_size, logits, jnp.finfo(jnp.float32).min)


class PreTrainingHeads(nn.Module):
    config: ModelConfig
    next_sentence: bool

    def setup(self):
        self.predictions = MaskedLM(self.config)
        if self.next_sentence:
            self.seq_relationship = nn.Dense(2, kernel_init=initializer(self.config))

    def __call__(self, hidden, pooled, masked_lm_positions, word_embeddings):
        mlm = self.predictions(hidden, masked_lm_positions, word_embeddings)
        return mlm, self.seq_relationship(pooled) if self.next_sentence else None


class BertModel(nn.Module):
    """The encoder alone, its parameters under `bert` as in all others; returns `(hidden, pooled)`."""

    config: ModelConfig
    pooler: bool = True

    def setup(self):
        self.bert = BertEncoder(self.config, self.pooler)

    def __call__(self, input_ids, token_type_ids, attention_mask, deterministic: bool = True):
        return self.bert(input_ids, token_type_ids, attention_mask, deterministic=deterministic)


class BertForPreTraining(nn.Module):
    """The encoder with the masked-LM head and, where `next_sentence`, the next-sentence head.

    Call with the encoder's arguments and `masked_lm_positions` [batch, predictions], int32. Returns float32
    `(mlm_logits [batch, predictions, padded vocabulary], nsp_logits [batch, 2])`; `nsp_logits` (0: B follows A, 1: B is
    random) is None without the head.
    """

    config: ModelConfig
    next_sentence: bool = True

    def setup(self):
        self.bert = BertEncoder(self.config, pooler=self.next_sentence)
        self.cls = PreTrainingHeads(self.config, self.next_sentence)

    def __call__(
        self,
        input_ids,
        token_type_ids,
        attention_mask,
        masked_lm_positions,
        position_ids=None,
        sequence_ids=None,
        deterministic: bool = True,
    ):
        inputs = (input_ids, token_type_ids, attention_mask, position_ids, sequence_ids)
        hidden, pooled = self.bert(*inputs, deterministic=deterministic)
        word_embeddings = self.bert.embeddings.word_embeddings.embedding
        return self.cls(hidden, pooled, masked_lm_positions, word_embeddings)


class Classifier(nn.Module):
    """Dropout and a product to `outputs` float32 numbers."""

    config: ModelConfig
    outputs: int
    dropout: float | None = None

    @nn.compact
    def __call__(self, x, deterministic: bool):
        rate = self.config.hidden_dropout_prob if self.dropout is None else self.dropout
        x = Dropout(rate)(x, deterministic=deterministic)
        return nn.Dense(self.outputs, kernel_init=initializer(self.config), name="dense")(x.astype(jnp.float32))


class BertForLabels(nn.Module):
    """The encoder with a dense layer to `outputs` numbers. Returns float32 logits of the kind:

    sequence_classification: [batch, outputs] of a text or a pair, from the pooled [CLS] (paper, section 4.1).
    multiple_choice: [batch, choices] of inputs [batch, choices, sequence], from the same (section 4.4).
    token_classification: [batch, sequence, outputs] (section 5.3).
    question_answering: [batch, sequence, 2] of where an answer starts and ends, without dropout (section 4.2).

    Rows of several texts need the encoder's further arguments; `position_ids`, `sequence_ids` and `first_tokens` of
    multiple choice are [batch, choices, ...]. The first two kinds then have logits [batch, texts, outputs] and
    [batch, texts, choices].
    """

    kind: str
    config: ModelConfig
    outputs: int
    dropout: float | None = None

    def setup(self):
        self.pooled = self.kind in ("sequence_classification", "multiple_choice")
        self.bert = BertEncoder(self.config, self.pooled)
        self.classifier = Classifier(self.config, self.outputs, self.dropout)

    def __call__(
        self,
        input_ids,
        token_type_ids,
        attention_mask,
        position_ids=None,
        sequence_ids=None,
        first_tokens=None,
        deterministic: bool = True,
    ):
        inputs = (input_ids, token_type_ids, attention_mask, position_ids, sequence_ids, first_tokens)
        # [B, C, S] -> [B C, S]
        flat = (x if x is None else x.reshape(-1, x.shape[-1]) for x in inputs)
        hidden, pooled = self.bert(*flat, deterministic=deterministic)
        logits = self.classifier(pooled if self.pooled else hidden, deterministic)
        if self.kind != "multiple_choice":
            return logits
        # [B C, 1] -> [B, C], or [B C, T, 1] -> [B, C, T] -> [B, T, C], of T texts in a row
        logits = logits.reshape(*input_ids.shape[:-1], *logits.shape[1:-1])
        return logits if first_tokens is None else logits.swapaxes(1, 2)


def make_model(config: ModelConfig, head: HeadConfig) -> nn.Module:
    """The module of a head's kind on the encoder; all take input_ids, token_type_ids and attention_mask first."""
    match head.kind:
        case "encoder":
            return BertModel(config, head.pooler)
        case "masked_lm" | "pretraining":
            return BertForPreTraining(config, next_sentence=head.kind == "pretraining")
        case "sequence_classification" | "token_classification":
            return BertForLabels(head.kind, config, len(head.labels), head.dropout)
        case "question_answering":
            return BertForLabels(head.kind, config, 2, dropout=0.0)
        case "multiple_choice":
            return BertForLabels(head.kind, config, 1, head.dropout)


def init_params(model: nn.Module, seed: int) -> dict:
    """Fresh parameters of one of these, as nested dicts."""
    choices = isinstance(model, BertForLabels) and model.kind == "multiple_choice"
    ids = jnp.zeros((1, 1, 8) if choices else (1, 8), jnp.int32)
    positions = [ids[:, :1]] if isinstance(model, BertForPreTraining) else []
    return model.init(jax.random.key(seed), ids, ids, ids, *positions)["params"]
