"""The tokens that a masked-LM head finds probable where a text has [MASK]."""

import dataclasses
import functools
from typing import Any

import jax

from bert_jax.config import InputError
from bert_jax.data.tokenizers import MASK
from bert_jax.inference import texts as text_features
from bert_jax.inference.engine import Batch, Engine

# Positions in a batch, few because each masked one has a score for every token of the vocabulary.
POSITIONS = 2048


@dataclasses.dataclass(frozen=True)
class Filled:
    """A guess for one [MASK]."""

    token: str
    probability: float


def fill_mask(engine: Engine, texts: list[str], top: int) -> list[list[list[Filled]]]:
    """The `top` most probable tokens for each [MASK] of each text."""
    if top < 1:
        raise InputError(f"top: is {top}, must be at least 1")
    mask_id = engine.tokenizer.special_ids[MASK]
    pieces = engine.tokenizer.pieces()  # Some models have more rows than their tokenizer has pieces.
    features = [text_features.masked_feature(engine.tokenizer, engine.longest, text) for text in texts]
    masked = [[position for position, i in enumerate(f.input_ids) if i == mask_id] for f in features]

    def best(length: int, batch: Batch) -> Any:
        scores = engine.forward(length, batch)
        scores = scores[0] if isinstance(scores, tuple) else scores
        return _top(scores, len(pieces), min(top, len(pieces)))

    best_tokens = engine.outputs(best, features, "prediction", masked, positions=POSITIONS)
    return [
        [
            [Filled(pieces[i], float(p)) for i, p in zip(ids, probabilities, strict=True)]
            for probabilities, ids in zip(*guesses, strict=True)
        ]
        for guesses in best_tokens
    ]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _top(scores, pieces: int, top: int):
    """The highest probabilities and their ids, [..., top] each."""
    return jax.lax.top_k(jax.nn.softmax(scores[..., :pieces]), top)
