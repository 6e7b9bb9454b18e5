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


def label_sums(kind: str, logits, batch) -> dict:
    """Sums over what has a label, for a head's kind and rows of several texts.

    `labels` are as the logits without the last axis. One logit is a regression, with the squared error. Of
    question_answering the logits are [B, S, 2], and the labels [B, texts, 2] say where in the row an answer starts and
    ends: the loss is the mean of both, each a choice among the text's own tokens. Below 0 (or not a number) is no
    label.
    """
    labels = batch["labels"]
    if kind == "question_answering":
        # [B, S] -> [B, texts, 1, S]
        own = batch["sequence_ids"][:, None, None] == jnp.arange(labels.shape[1])[:, None, None]
        # [B, S, 2] -> [B, 1, 2, S] -> [B, texts, 2, S]
        logits = jnp.where(own, jnp.swapaxes(logits, 1, 2)[:, None], jnp.finfo(logits.dtype).min)
    if kind == "sequence_classification" and logits.shape[-1] == 1:
        there = ~jnp.isnan(labels)
        errors = jnp.where(there, logits[..., 0] - jnp.where(there, labels, 0), 0)
        return {"label_loss": jnp.sum(errors**2), "label_count": jnp.sum(there, dtype=jnp.float32)}
    return _sums("label", logits, jnp.maximum(labels, 0), (labels >= 0).astype(jnp.float32))


def counts(batch) -> dict:
    """What divides each loss of a batch; known before any part of it is computed."""
    if "labels" in batch:
        labels = batch["labels"]
        there = ~jnp.isnan(labels) if jnp.issubdtype(labels.dtype, jnp.floating) else labels >= 0
        return {"label": jnp.sum(there) + EPSILON}
    return {
        "mlm": jnp.sum(batch["masked_lm_weights"]) + EPSILON,
        "nsp": jnp.sum(batch["next_sentence_labels"] >= 0) + EPSILON,
    }


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
    """The sum of all losses as `loss`, and of each task (mlm, nsp, label) its `_loss` and `_accuracy`."""
    result = {}
    for task in ("mlm", "nsp", "label"):
        if f"{task}_loss" in sums:
            count = sums[f"{task}_count"] + EPSILON
            result[f"{task}_loss"] = sums[f"{task}_loss"] / count
            if f"{task}_correct" in sums:
                result[f"{task}_accuracy"] = sums[f"{task}_correct"] / count
    return {"loss": sum(value for name, value in result.items() if name.endswith("_loss")), **result}
