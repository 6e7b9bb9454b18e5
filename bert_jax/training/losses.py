"""Losses as sums and counts, divided once at the end: any number of devices, parts or batches gives one number."""

import jax.numpy as jnp
import optax

# As in the original: keeps the division defined where nothing is masked.
EPSILON = 1e-5


def masked_lm_sums(logits, batch) -> dict:
    """Sums over the masked positions. `logits` [B, K, V] float32."""
    return _sums("mlm", logits, batch["masked_lm_ids"], batch["masked_lm_weights"])


def next_sentence_sums(logits, batch) -> dict:
    """Sums over the examples with a label (padding rows have none). `logits` [B, 2] float32."""
    labels = batch["next_sentence_labels"]
    return _sums("nsp", logits, jnp.maximum(labels, 0), (labels >= 0).astype(jnp.float32))


def _sums(task: str, logits, labels, weights) -> dict:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # The label's score is the highest: over a whole vocabulary, cheaper than an argmax.
    correct = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0] >= jnp.max(logits, -1)
    return {
        f"{task}_loss": jnp.sum(losses * weights),
        f"{task}_correct": jnp.sum(correct * weights),
        f"{task}_count": jnp.sum(weights),
    }


def means(sums: dict) -> dict:
    """`loss`, `mlm_loss`, `mlm_accuracy` and, with a next-sentence head, `nsp_loss`, `nsp_accuracy`."""
    result = {}
    for task in ("mlm", "nsp"):
        if f"{task}_loss" in sums:
            count = sums[f"{task}_count"] + EPSILON
            result[f"{task}_loss"] = sums[f"{task}_loss"] / count
            result[f"{task}_accuracy"] = sums[f"{task}_correct"] / count
    return {"loss": result["mlm_loss"] + result.get("nsp_loss", 0.0), **result}
