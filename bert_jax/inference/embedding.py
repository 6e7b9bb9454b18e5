"""A vector for each text."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import EmbeddingConfig, InputError, ModelConfig
from bert_jax.devices.compiling import jitted
from bert_jax.inference import texts as text_features
from bert_jax.inference.engine import Engine
from bert_jax.models import Architecture

Pooling = Literal["mean", "cls"]


@functools.lru_cache(maxsize=8)
def _pooled(
    architecture: Architecture, config: ModelConfig, mesh: Mesh, mean: bool
) -> Callable[[int], jax.stages.Wrapped]:
    """A function (params, batch, skipped) -> float32 [rows, texts of a row, hidden]: for each text the vector of its
    first token, or the mean of those after the first `skipped`."""
    encoder = architecture.encoder(config, pooler=False)

    def pooled(params, batch, skipped):
        names = "input_ids", "token_type_ids", "attention_mask", "position_ids", "sequence_ids"
        hidden, _ = encoder.apply({"params": params[architecture.name]}, *(batch[name] for name in names))
        hidden, first = hidden.astype(jnp.float32), batch["first_tokens"]
        if not mean:
            return jnp.take_along_axis(hidden, first[..., None], axis=1)
        slots = jnp.arange(first.shape[1])[:, None]  # [T, 1], beside [R, 1, S]
        counted = (batch["sequence_ids"][:, None] == slots) & (batch["position_ids"][:, None] >= skipped)
        # [R, T, S] x [R, S, H] -> [R, T, H], in full float32.
        sums = jnp.einsum("rts,rsh->rth", counted.astype(jnp.float32), hidden, precision="highest")
        return sums / jnp.maximum(counted.sum(-1, keepdims=True), 1)

    return jitted(pooled, mesh, config.dtype)


def encode(
    engine: Engine,
    settings: EmbeddingConfig,
    texts: list[str],
    prompt: str,
    positions: int | None,
    done: Callable[[int], object],
) -> np.ndarray:
    """Vectors, float32 [texts, hidden], in the texts' order, neither normalised nor cut to fewer dimensions."""
    longest = min(settings.max_length or engine.longest, engine.longest)
    texts = [prompt + text for text in texts]
    if settings.lowercase:
        prompt, texts = prompt.lower(), [text.lower() for text in texts]
    features = text_features.features(engine.tokenizer, engine.longest, texts, length=longest)
    # [CLS] is left out together with the prompt, and at least [SEP] stays.
    prompt_ids = text_features.bare_ids(engine.tokenizer, [prompt])[0]
    skipped = 0 if settings.include_prompt or not prompt else min(1 + len(prompt_ids), longest - 1)
    model = engine.model
    pooled = _pooled(model.architecture, model.config, engine.mesh, settings.pooling == "mean")
    vectors = engine.outputs(
        lambda length, batch: pooled(length)(engine.params, batch, np.int32(skipped)),
        features,
        positions=positions,
        longest=longest,
        done=done,
    )
    return np.stack(vectors) if vectors else np.empty((0, model.config.hidden_size), np.float32)


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Vectors, float32 [texts, hidden], each divided by its length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def choose_prompt(settings: EmbeddingConfig, name: str | None, prompt: str | None) -> str:
    """The prompt to put before each text. Raises `InputError` for an unknown name, or where both are given."""
    if name is not None and prompt is not None:
        raise InputError("give prompt or prompt_name, not both")
    if name is not None and name not in settings.prompts:
        raise InputError(f"prompt_name: is {name!r}; the model's prompts are {', '.join(settings.prompts) or 'none'}")
    name = settings.default_prompt if name is None else name
    return prompt if prompt is not None else settings.prompts.get(name or "", "")


def with_pooling(settings: EmbeddingConfig, pooling: Pooling | None) -> EmbeddingConfig:
    """The settings with this pooling (None: their own). Raises `InputError` where it isn't supported."""
    if settings.unknown and pooling is None:
        other = f"the model's vectors are made by {settings.unknown}, which encode doesn't do"
        raise InputError(f'{other}; choose pooling="mean" or pooling="cls"')
    pooling = settings.pooling if pooling is None else pooling
    if pooling not in ("mean", "cls"):
        raise InputError(f"pooling: is {pooling!r}, must be mean or cls")
    return dataclasses.replace(settings, pooling=pooling)
