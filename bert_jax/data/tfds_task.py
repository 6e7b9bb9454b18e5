"""Records of a TensorFlow Datasets data set for a downstream task, as plain Python values."""

from typing import Any

import numpy as np

from bert_jax.config import InputError
from bert_jax.data.tfds_reading import made, opened, records


def tfds_records(dataset: str, split: str, data_dir: str | None) -> list[dict[str, Any]]:
    """The records of a split in the order of `idx`, that of the original file; downloaded and made if need be.

    Texts are strings; a class is its number, and -1 where it is secret. Raises `InputError` naming the data set.
    """
    try:
        builder = made(opened(dataset, data_dir), dataset)
        plain = list(records(builder, dataset, split, _plain_record))
    except InputError as error:
        raise InputError(f"{error}; or give the official files: --task.folder FOLDER") from None
    return sorted(plain, key=lambda record: record["idx"])


def is_here(dataset: str) -> bool:
    """Whether a data set is in the library's default folder."""
    return opened(dataset, None).data_path.exists()


def _plain_record(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    # A float32 as the file writes it: 3.8, not 3.799999952316284.
    return float(str(value)) if isinstance(value, np.floating) else value.item()
