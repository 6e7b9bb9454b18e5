"""The pure steps: one for training, one for evaluation, and the state they work on.

A train state is a plain dict: `params`, `opt_state`, and `step`, the number of steps done.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bert_jax import models
from bert_jax.config import HeadConfig, ModelConfig, PretrainConfig
from bert_jax.models import BertForPreTraining, init_params
from bert_jax.training import losses

MODEL_INPUTS = ("input_ids", "token_type_ids", "attention_mask", "masked_lm_positions")
# Only batches of packed examples have these.
PACKED_INPUTS = ("position_ids", "sequence_ids")


def pretraining_head(config: PretrainConfig) -> HeadConfig:
    return HeadConfig("pretraining" if config.examples.sentence_pairs else "masked_lm")


def make_model(config: PretrainConfig) -> BertForPreTraining:
    return models.make_model(config.model, pretraining_head(config))


def init_state(model: nn.Module, optimizer: optax.GradientTransformation, seed) -> dict:
    """A fresh state of a seed, a number or an int32 scalar.

    To be jitted with output shardings, so that each device makes only what it holds.
    """
    params = init_params(model, seed)
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


def forward(model: nn.Module, params, batch, dropout_key=None):
    """A head's outputs for a batch; with dropout where a key is given."""
    return model.apply(
        {"params": params},
        **{name: batch[name] for name in (*MODEL_INPUTS, *PACKED_INPUTS, "first_tokens") if name in batch},
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )


def loss_sums(model: nn.Module, params, batch, dropout_key=None) -> dict:
    """Sums and counts of a batch's losses, and how many of its places are tokens."""
    outputs = forward(model, params, batch, dropout_key)
    mask = batch["attention_mask"]
    sums = {"tokens": jnp.sum(mask), "places": jnp.array(mask.size)}
    if "labels" in batch:
        return {**sums, **losses.label_sums(model.kind, outputs, batch)}
    mlm_logits, nsp_logits = outputs
    sums |= losses.masked_lm_sums(mlm_logits, batch)
    return sums if nsp_logits is None else {**sums, **losses.next_sentence_sums(nsp_logits, batch)}


def make_train_step(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, parts: int = 1):
    """`train_step(state, batch, seed, schedule) -> (state, metrics)`; metrics are float32 scalars, sums undivided.

    `seed`, of dropout, is an int32 scalar, `schedule` an `optimizer.Schedule`: runs that differ in them alone share a
    program. With `parts` above 1 the batch is computed in as many parts, one after the other, and updated once.
    """

    def train_step(state, batch, seed, schedule):
        params = state["params"]
        dropout_key = jax.random.fold_in(jax.random.key(seed), state["step"])
        # The whole batch's counts divide every part's sums, so that the parts' gradients just add up.
        counts = losses.counts(batch)

        def part_loss(params, part, key):
            sums = loss_sums(model, params, part, key)
            return sum(sums[f"{task}_loss"] / n for task, n in counts.items() if f"{task}_loss" in sums), sums

        gradient = jax.grad(part_loss, has_aux=True)
        if parts == 1:
            grads, sums = gradient(params, batch, dropout_key)
        else:
            grads, sums = _accumulated(gradient, params, batch, dropout_key, parts)
        updates, opt_state = optimizer.update(grads, state["opt_state"], params, schedule=schedule)
        skipped = {"skipped_in_a_row": opt_state.notfinite_count, "skipped_updates": opt_state.total_notfinite}
        state = {"params": optax.apply_updates(params, updates), "opt_state": opt_state, "step": state["step"] + 1}
        return state, {**sums, "gradient_norm": optax.tree.norm(grads), **skipped}

    return train_step


def _accumulated(gradient, params, batch, key, parts: int):
    """The sum of the parts' gradients and sums."""
    # Every parts-th row, so that each device's rows stay with it: [B, ...] -> [parts, B / parts, ...].
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total, numbered):
        number, part = numbered
        return jax.tree.map(jnp.add, total, gradient(params, part, jax.random.fold_in(key, number))), None

    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (jnp.arange(parts), split))[0]


def make_evaluation_step(model: BertForPreTraining, unigram_log_probabilities):
    """`evaluation_step(params, batch) -> sums`, with the cross-entropy of the same tokens under the unigram."""

    def evaluation_step(params, batch):
        unigram = -jnp.asarray(unigram_log_probabilities)[batch["masked_lm_ids"]]
        return {**loss_sums(model, params, batch), "unigram_loss": jnp.sum(unigram * batch["masked_lm_weights"])}

    return evaluation_step


def model_flops(model: ModelConfig, batch) -> float:
    """The same for a batch, or its shapes; a head's own products, but for the vocabulary's, aren't counted."""
    tokens, length = math.prod(batch["input_ids"].shape), batch["input_ids"].shape[-1]
    predictions = batch["masked_lm_positions"].shape[-1] if "masked_lm_positions" in batch else 0
    return tokens * model_flops_per_token(model, length, predictions)


def model_flops_per_token(model: ModelConfig, length: int, predictions: int) -> float:
    """Floating-point operations of the products, forward and backward, for one token (two for a multiply-add)."""
    layers, hidden, inner = model.num_hidden_layers, model.hidden_size, model.intermediate_size
    encoder = 6 * layers * (4 * hidden**2 + 2 * hidden * inner) + 12 * layers * hidden * length
    return encoder + 6 * (hidden * model.vocab_size + hidden**2) * predictions / length
