"""Records of a TensorFlow Datasets data set for a downstream task, as plain Python values."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bert_jax.config import InputError, first_line

# The GPUs are JAX's.
tf.config.set_visible_devices([], "GPU")


def tfds_records(dataset: str, split: str, data_dir: str | None) -> list[dict[str, Any]]:
    """The records of a split by their `idx`, the order of the original file; downloaded and made where they aren't yet.

    Texts are strings; a class is its number, and -1 where it is kept secret. Raises `InputError` naming the data set.
    """
    try:
        builder = tfds.builder(dataset, data_dir=data_dir)
        builder.download_and_prepare()
        records = list(builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator())
    except (tfds.download.DownloadError, ValueError, OSError) as error:
        problem = f"TFDS data set {dataset!r}, split {split!r}: {first_line(error)}"
        raise InputError(f"{problem}; or give the official files: --task.folder FOLDER") from None
    plain = [{name: _plain(value) for name, value in record.items()} for record in records]
    return sorted(plain, key=lambda record: record["idx"])


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    # A float32 as it is written: 3.8, not 3.799999952316284.
    return float(str(value)) if isinstance(value, np.floating) else value.item()
