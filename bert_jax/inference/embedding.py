"""One vector for each text."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from bert_jax.config import ModelConfig
from bert_jax.data import packing
from bert_jax.devices.compiling import jitted
from bert_jax.models import architecture_of

# Places in a batch. A processor is as fast in its caches with few; an accelerator needs many to be busy.
PLACES = {"cpu": 1024}
PLACES_ELSEWHERE = 32_768


class Embedder:
    """Makes vectors of texts; each shape is compiled once (see `packing.rows_of` for how many there are)."""

    def __init__(self, config: ModelConfig, params: dict):
        architecture = architecture_of(config)
        encoder = architecture.encoder(config, pooler=False)
        self._params, self._hidden_size = params[architecture.name], config.hidden_size

        def pooled(params, input_ids, position_ids, sequence_ids, weights):
            # A place of no text has a sequence id of its own: no text sees it.
            places = jnp.zeros_like(input_ids), jnp.ones_like(input_ids)
            hidden, _ = encoder.apply({"params": params}, input_ids, *places, position_ids, sequence_ids)
            # [rows, texts, S] x [rows, S, H] -> [rows, texts, H]; the mean of float32, to its last digit.
            return jnp.einsum("rts,rsh->rth", weights, hidden.astype(jnp.float32), precision="highest")

        self._pooled = jitted(pooled)

    def __call__(
        self, ids: Sequence[list[int]], longest: int, mean: bool, skipped: int, places: int | None, bar: tqdm
    ) -> np.ndarray:
        """float32 [texts, hidden], in their order: of their first tokens, or the mean behind the `skipped` first."""
        vectors = np.empty((len(ids), self._hidden_size), np.float32)
        places = places or PLACES.get(jax.default_backend(), PLACES_ELSEWHERE)
        under_way = None
        for rows in packing.rows_of([len(text) for text in ids], longest, places):
            started = rows, self._pooled(rows.length, self._params, **packing.arrays(rows, ids, mean, skipped))
            if under_way:  # Fetched while the device has the next.
                _fetch(*under_way, vectors, bar)
            under_way = started
        if under_way:
            _fetch(*under_way, vectors, bar)
        return vectors


def _fetch(rows: packing.Rows, pooled: jax.Array, vectors: np.ndarray, bar: tqdm) -> None:
    pooled = np.asarray(pooled)
    for row, texts in enumerate(rows.texts):
        vectors[texts] = pooled[row, : len(texts)]
        bar.update(len(texts))
