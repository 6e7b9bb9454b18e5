"""Losses as sums and counts, divided once at the end: any number of devices, parts or batches gives one number."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num

from bert_jax.models.arrays import AnyArray, Sums

# As in the original: keeps the division defined if nothing is masked.
EPSILON = 1e-5


def cross_entropy(
    name: str,
    logits: Float[Array, "*entries classes"],
    labels: Int[AnyArray, "*entries"],
    weights: Float[AnyArray, "*entries"],
) -> Sums:
    """Sums of the loss, of right predictions and of weights, each label times its weight."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # The label's score is the highest: over a whole vocabulary, cheaper than an argmax.
    correct = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0] >= jnp.max(logits, -1)
    return {
        f"{name}_loss": jnp.sum(losses * weights),
        f"{name}_correct": jnp.sum(correct * weights),
        f"{name}_count": jnp.sum(weights),
    }


def cross_entropy_of_labels(
    name: str, logits: Float[Array, "*entries classes"], labels: Int[AnyArray, "*entries"]
) -> Sums:
    """`cross_entropy` of entries whose label is known: not below 0."""
    return cross_entropy(name, logits, jnp.maximum(labels, 0), (labels >= 0).astype(jnp.float32))


def sum_over_values(name: str, losses: Callable[[Array], Array], labels: Float[AnyArray, "..."]) -> Sums:
    """Sum and count of losses over the labels that are known: not NaN. `losses` is a function of the labels."""
    known = ~jnp.isnan(labels)
    sums = jnp.sum(jnp.where(known, losses(jnp.where(known, labels, 0)), 0))
    return {f"{name}_loss": sums, f"{name}_count": jnp.sum(known, dtype=jnp.float32)}


def count_of_labels(labels: Num[AnyArray, "..."]) -> Float[Array, ""]:
    """The number of known labels: not below 0 or, if they are floating-point numbers, not NaN."""
    known = ~jnp.isnan(labels) if jnp.issubdtype(labels.dtype, jnp.floating) else labels >= 0
    return jnp.sum(known) + EPSILON


def means(sums: dict) -> dict:
    """For each name (mlm, nsp, label) the means `_loss` and `_accuracy`; and `loss`, the sum of all these losses."""
    result = {}
    for name in (key.removesuffix("_count") for key in sums if key.endswith("_count")):
        count = sums[f"{name}_count"] + EPSILON
        result[f"{name}_loss"] = sums[f"{name}_loss"] / count
        if f"{name}_correct" in sums:
            result[f"{name}_accuracy"] = sums[f"{name}_correct"] / count
    return {"loss": sum(value for name, value in result.items() if name.endswith("_loss")), **result}
