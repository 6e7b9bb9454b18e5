"""The pure functions for a step of training and of evaluation, and the state they work on.

A train state is a plain dict: `params`, `opt_state`, and `step`, the number of steps done.
"""

import jax
import jax.numpy as jnp
import optax

from bert_jax import models
from bert_jax.config import HeadConfig, ModelConfig, PretrainConfig
from bert_jax.models import MaskedLM, Model, Pretraining, init_params
from bert_jax.objectives import Objective


def pretraining_head(config: PretrainConfig) -> HeadConfig:
    return HeadConfig(Pretraining.kind if config.examples.sentence_pairs else MaskedLM.kind)


def make_model(config: PretrainConfig) -> Model:
    return models.make_model(config.model, pretraining_head(config))


def init_state(model: Model, optimizer: optax.GradientTransformation, seed) -> dict:
    """A fresh state from a seed (a number or an int32 scalar).

    Jit it with output shardings, so that each device makes only what it holds.
    """
    params = init_params(model, seed)
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


def make_train_step(objective: Objective, optimizer: optax.GradientTransformationExtraArgs, parts: int = 1):
    """`train_step(state, batch, seed, schedule, constants) -> (state, metrics)`; metrics are scalars, and sums
    aren't divided by their counts.

    `seed`, the seed of dropout, is an int32 scalar, `schedule` an `optimizer.Schedule`: runs that differ only in these
    share a compiled program. `constants` are the objective's. With `parts` above 1 the batch is computed in that many
    parts, one after the other, followed by one update.
    """

    def train_step(state, batch, seed, schedule, constants=()):
        params = state["params"]
        dropout_key = jax.random.fold_in(jax.random.key(seed), state["step"])
        # The whole batch's counts divide every part's sums, so that the parts' gradients just add up.
        counts = objective.counts(batch)

        def part_loss(params, part, key):
            sums = objective.sums(params, constants, part, key)
            loss = sum(sums[f"{name}_loss"] / count for name, count in counts.items())
            mask = part["attention_mask"]
            # How many positions of the batch are tokens, and how many there are, with padding.
            return loss, {"tokens": jnp.sum(mask), "positions": jnp.array(mask.size), **sums}

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
    """The gradients and sums of the parts, added up."""
    # A part takes every parts-th row, so that each row stays on its device: [B, ...] -> [parts, B / parts, ...].
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total, numbered):
        number, part = numbered
        return jax.tree.map(jnp.add, total, gradient(params, part, jax.random.fold_in(key, number))), None

    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (jnp.arange(parts), split))[0]


def make_evaluation_step(objective: Objective, unigram_log_probabilities):
    """`evaluation_step(params, batch) -> sums`, with the cross-entropy of the same tokens under a unigram model."""

    def evaluation_step(params, batch):
        unigram = -jnp.asarray(unigram_log_probabilities)[batch["masked_lm_ids"]]
        sums = objective.sums(params, objective.constants(), batch)
        return {**sums, "unigram_loss": jnp.sum(unigram * batch["masked_lm_weights"])}

    return evaluation_step


def model_flops(model: ModelConfig, batch) -> float:
    """Floating-point operations of a training step's products, given a batch or its shapes (see `Architecture`)."""
    tokens, length = batch["input_ids"].size, batch["input_ids"].shape[-1]
    predictions = batch["masked_lm_positions"].shape[-1] if "masked_lm_positions" in batch else 0
    return tokens * models.architecture_of(model).flops_per_token(model, length, predictions)
