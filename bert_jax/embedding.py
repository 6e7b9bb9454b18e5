"""One vector for each text: how a sentence-transformers folder makes it, and making it."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from bert_jax import packing
from bert_jax.compiling import jitted
from bert_jax.config import EmbeddingConfig, InputError, ModelConfig
from bert_jax.model import BertEncoder

# Places in a batch. A processor is as fast in its caches with few; an accelerator needs many to be busy.
PLACES = {"cpu": 1024}
PLACES_ELSEWHERE = 32_768


def of_folder(folder: Path) -> EmbeddingConfig:
    """What the files of sentence-transformers in a folder say; the defaults where there are none."""
    modules = _json(folder / "modules.json")
    if not modules:
        return EmbeddingConfig()
    kinds = {module["type"].rsplit(".", 1)[-1]: folder / module["path"] for module in modules}
    pooling, unknown = "mean", ", ".join(sorted(kinds.keys() - {"Transformer", "Pooling", "Normalize"}))
    if "Pooling" in kinds:
        found = _json(kinds["Pooling"] / "config.json")
        modes = {name for name, on in found.items() if name.startswith("pooling_mode_") and on is True}
        modes = modes or {found.get("pooling_mode", "mean")}
        known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "mean": "mean", "cls": "cls"}
        if len(modes) == 1 and modes <= known.keys():
            pooling = known[modes.pop()]
        else:
            unknown = ", ".join(sorted(modes))
    model = _json(folder / "sentence_bert_config.json")
    return EmbeddingConfig(
        pooling, "Normalize" in kinds, model.get("max_seq_length"), bool(model.get("do_lower_case")), unknown
    )


def _json(file: Path):
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from None


class Embedder:
    """Makes vectors of texts; each shape is compiled once (see `packing.rows_of` for how many there are)."""

    def __init__(self, config: ModelConfig, params: dict):
        encoder = BertEncoder(config, pooler=False)
        self._params, self._hidden_size = params["bert"], config.hidden_size

        def pooled(params, input_ids, position_ids, sequence_ids, weights):
            # A place of no text has a sequence id of its own: no text sees it.
            places = jnp.zeros_like(input_ids), jnp.ones_like(input_ids)
            hidden, _ = encoder.apply({"params": params}, input_ids, *places, position_ids, sequence_ids)
            # [rows, texts, S] x [rows, S, H] -> [rows, texts, H]; the mean of float32, to its last digit.
            return jnp.einsum("rts,rsh->rth", weights, hidden.astype(jnp.float32), precision="highest")

        self._pooled = jitted(pooled)

    def __call__(self, ids: Sequence[list[int]], longest: int, mean: bool, places: int | None, bar: tqdm) -> np.ndarray:
        """float32 [texts, hidden], in their order."""
        vectors = np.empty((len(ids), self._hidden_size), np.float32)
        places = places or PLACES.get(jax.default_backend(), PLACES_ELSEWHERE)
        under_way = None
        for rows in packing.rows_of([len(text) for text in ids], longest, places):
            started = rows, self._pooled(rows.length, self._params, **packing.arrays(rows, ids, mean))
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
