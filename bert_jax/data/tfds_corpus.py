"""Documents of a TensorFlow Datasets text data set (wikipedia, c4, lm1b, or one's own)."""

from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds

from bert_jax.config import CorpusConfig, InputError

# The GPUs are JAX's.
tf.config.set_visible_devices([], "GPU")


def tfds_documents(config: CorpusConfig) -> Iterator[list[str]]:
    """One document for each record, its lines those of `text_field`; the files' order, so always the same."""
    where = f"TFDS data set {config.dataset!r}"
    try:
        builder = tfds.builder(config.dataset, data_dir=config.data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise InputError(f"{where}: {str(error).strip().splitlines()[0]}") from None
    fields = [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Text)]
    if config.text_field not in fields:
        there = f"--corpus.text-field is one of {', '.join(fields)}" if fields else "it has none"
        raise InputError(f"{where} has no text feature {config.text_field!r}; {there}")
    try:
        dataset = tfds.load(config.dataset, split=config.split, data_dir=config.data_dir, shuffle_files=False)
    except (ValueError, OSError, tfds.download.DownloadError) as error:
        raise InputError(f"{where}, split {config.split!r}: {str(error).strip().splitlines()[0]}") from None
    for record in dataset.as_numpy_iterator():
        text = record[config.text_field].decode("utf-8")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if lines:
            yield lines
