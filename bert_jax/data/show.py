"""Shows training examples to a person: what the model sees, and what it must predict."""

import dataclasses
import itertools
import textwrap

import numpy as np

from bert_jax.config import ExamplesConfig, InputError, PretrainConfig
from bert_jax.config.files import from_dict
from bert_jax.data import pipeline
from bert_jax.data.records import Examples
from bert_jax.data.tensorflow import tf

WIDTH = 120


def show(examples: Examples, config: PretrainConfig, count: int) -> list[str]:
    """The first `count` examples of the training batches, each as a few lines: one for each segment or text.

    From the config, the first phase, the masking and the seed are used.

    "seen{predicted}" shows a token to predict, and what the model sees instead: [MASK], a random token, or the token.
    """
    config = dataclasses.replace(config, examples=from_dict(ExamplesConfig, examples.manifest["config"]["examples"]))
    examples.check_files({phase.sequence_length for phase in config.phases})
    rows = (
        {name: values[i] for name, values in batch.items()}
        for batch in pipeline.batches(examples, config)
        for i in range(len(batch["input_ids"]))
    )
    pieces = examples.tokenizer.pieces()
    try:
        return [
            f"example {number}: {_described(row, pieces, config.examples.sentence_pairs)}"
            for number, row in enumerate(itertools.islice(rows, count), 1)
        ]
    except (IndexError, tf.errors.OpError):  # Their checksums are right, so they were written so.
        size = len(pieces)
        raise InputError(f"{examples.folder}: has ids beyond its vocabulary of {size:,}; prepare it again") from None


def _described(row: dict[str, np.ndarray], pieces: list[str], sentence_pairs: bool) -> str:
    predicted = {
        int(position): pieces[i]
        for position, i, weight in zip(
            row["masked_lm_positions"], row["masked_lm_ids"], row["masked_lm_weights"], strict=True
        )
        if weight
    }
    length, used = len(row["input_ids"]), int(row["attention_mask"].sum())
    tokens = [pieces[i] + (f"{{{predicted[p]}}}" if p in predicted else "") for p, i in enumerate(row["input_ids"])]
    names = _names(row, sentence_pairs)[:used]
    relation = _relation(row) if sentence_pairs else ""
    lines = [f"{used} of {length} positions used, {len(predicted)} to predict{relation}"]
    for name, group in itertools.groupby(range(used), key=names.__getitem__):
        text = " ".join(tokens[position] for position in group)
        lines.append(textwrap.fill(text, WIDTH, initial_indent=f"  {name:2} ", subsequent_indent=" " * 5))
    return "\n".join(lines)


def _names(row: dict[str, np.ndarray], sentence_pairs: bool) -> list[str]:
    """The name of each token's segment (A, B) or text (1, 2, ...)."""
    if sentence_pairs:
        return ["AB"[i] for i in row["token_type_ids"]]
    return [str(i) for i in row.get("sequence_ids", row["attention_mask"])]


def _relation(row: dict[str, np.ndarray]) -> str:
    return "; B is from elsewhere" if row["next_sentence_labels"] else "; B follows A"
