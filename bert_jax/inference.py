"""A trained model in use: `bert = bert_jax.load("runs/tiny"); bert.fill_mask("Paris is the [MASK] of France.")`."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from bert_jax import pretrained, storage
from bert_jax.config import InputError
from bert_jax.data.tokenizers import CLS, MASK, PAD, SEP
from bert_jax.model import make_model

# Inputs are padded to a multiple of this, so that few lengths are compiled.
LENGTH_STEP = 32


@dataclasses.dataclass(frozen=True)
class Filled:
    """A guess for one [MASK]."""

    token: str
    probability: float


class Bert:
    """A pretrained model with its tokenizer.

    `config` and `head` say what it is; `params` are its weights, a tree of dicts.
    """

    def __init__(self, found: pretrained.Pretrained):
        self.config, self.head, self.tokenizer, self.params = found.model, found.head, found.tokenizer, found.params
        module = make_model(found.model, found.head)
        self._apply = jax.jit(lambda params, *inputs: module.apply({"params": params}, *inputs))

    def fill_mask(self, text: str, top: int = 5) -> list[list[Filled]]:
        """The `top` most probable tokens for each [MASK] in the text. Raises `InputError` where there is none."""
        special = self.tokenizer.special_ids
        if MASK not in text:
            raise InputError(f"{text!r}: holds no {MASK}")
        ids = [special[CLS], *self.tokenizer.encode_masked(text), special[SEP]]
        longest = self.config.max_position_embeddings
        if len(ids) > longest:
            raise InputError(f"{text[:40]!r}...: {len(ids)} tokens, the model reads {longest}")
        length = min(-(-len(ids) // LENGTH_STEP) * LENGTH_STEP, longest)
        input_ids = np.full((1, length), special[PAD], np.int32)
        input_ids[0, : len(ids)] = ids
        attention_mask = (np.arange(length) < len(ids)).astype(np.int32)[None]
        positions = np.flatnonzero(input_ids[0] == special[MASK])[None]
        logits, _ = self._apply(self.params, input_ids, np.zeros_like(input_ids), attention_mask, positions)
        probabilities, best = jax.lax.top_k(jax.nn.softmax(logits[0]), min(top, self.config.vocab_size))
        pieces = self.tokenizer.pieces()
        return [
            [Filled(pieces[i], float(p)) for i, p in zip(row, ps, strict=True)]
            for row, ps in zip(np.asarray(best), probabilities, strict=True)
        ]


@storage.errors_in_one_line()
def load(model: str | Path) -> Bert:
    """The model that `pretrained.read` finds there; raises its `InputError`."""
    with storage.errors_in_one_line():
        return Bert(pretrained.read(model))
