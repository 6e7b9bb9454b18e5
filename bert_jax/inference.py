"""A trained model in use: `bert = bert_jax.load("runs/tiny"); bert.fill_mask("Paris is the [MASK] of France.")`."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from bert_jax import storage
from bert_jax.config import InputError, PretrainConfig, from_dict
from bert_jax.data import tokenizers
from bert_jax.data.tokenizers import CLS, MASK, PAD, SEP
from bert_jax.training import steps
from bert_jax.training.checkpoints import Checkpoints

# Inputs are padded to a multiple of this, so that few lengths are compiled.
LENGTH_STEP = 32


@dataclasses.dataclass(frozen=True)
class Filled:
    """A guess for one [MASK]."""

    token: str
    probability: float


class Bert:
    """A pretrained model with its tokenizer."""

    def __init__(self, config: PretrainConfig, tokenizer: tokenizers.Tokenizer, params):
        self.config = config
        self.tokenizer = tokenizer
        self.params = params
        self._model = steps.make_model(config)
        self._apply = jax.jit(lambda params, *inputs: self._model.apply({"params": params}, *inputs))

    def fill_mask(self, text: str, top: int = 5) -> list[list[Filled]]:
        """The `top` most probable tokens for each [MASK] in the text. Raises `InputError` where there is none."""
        special = self.tokenizer.special_ids
        if MASK not in text:
            raise InputError(f"{text!r}: holds no {MASK}")
        ids = [special[CLS], *self.tokenizer.encode_masked(text), special[SEP]]
        longest = self.config.model.max_position_embeddings
        if len(ids) > longest:
            raise InputError(f"{text[:40]!r}...: {len(ids)} tokens, the model reads {longest}")
        length = min(-(-len(ids) // LENGTH_STEP) * LENGTH_STEP, longest)
        input_ids = np.full((1, length), special[PAD], np.int32)
        input_ids[0, : len(ids)] = ids
        attention_mask = (np.arange(length) < len(ids)).astype(np.int32)[None]
        positions = np.flatnonzero(input_ids[0] == special[MASK])[None]
        logits, _ = self._apply(self.params, input_ids, np.zeros_like(input_ids), attention_mask, positions)
        probabilities, best = jax.lax.top_k(jax.nn.softmax(logits[0]), min(top, self.config.model.vocab_size))
        pieces = self.tokenizer.pieces()
        return [
            [Filled(pieces[i], float(p)) for i, p in zip(row, ps, strict=True)]
            for row, ps in zip(np.asarray(best), probabilities, strict=True)
        ]


@storage.errors_in_one_line()
def load(model: str | Path) -> Bert:
    """The model of a workdir (its last checkpoint) or a checkpoint's folder; `InputError` where there is none."""
    checkpoints, step = find_checkpoint(model)
    config = from_dict(PretrainConfig, checkpoints.about(step)["config"])
    tokenizer = tokenizers.from_dict(checkpoints.tokenizer(step))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    bare = steps.make_model(config)
    shapes = jax.eval_shape(lambda: steps.init_params(bare, config.seed))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    return Bert(config, tokenizer, checkpoints.restore(step, {"params": like})["params"])


def find_checkpoint(model: str | Path) -> tuple[Checkpoints, int]:
    """The checkpoint of a workdir (its last) or of a checkpoint's folder."""
    path = storage.path(model)
    if (path / "checkpoints").exists():
        checkpoints = Checkpoints(path / "checkpoints")
        if checkpoints.latest is not None:
            return checkpoints, checkpoints.latest
    elif path.name.isdigit() and path.is_dir():
        checkpoints = Checkpoints(path.parent)
        if int(path.name) in checkpoints.steps:
            return checkpoints, int(path.name)
    raise InputError(f"{model}: holds no checkpoint; give the workdir of a run, or a folder in its checkpoints/")
