"""Heads on the encoder. Shapes in comments: B batch, K masked positions, H hidden, V vocabulary, padded."""

import flax.linen as nn
import jax.numpy as jnp

from bert_jax.config import ModelConfig
from bert_jax.model.encoder import ACTIVATIONS, BertEncoder, dense, initializer, layer_norm


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
        bias = self.param("output_bias", nn.initializers.zeros, (c.padded_vocab_size,))
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
