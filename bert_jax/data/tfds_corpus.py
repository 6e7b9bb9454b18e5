"""Documents of a TensorFlow Datasets text data set (wikipedia, c4, lm1b, or your own)."""

import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from bert_jax.config import CorpusConfig, InputError, first_line
from bert_jax.data.tfds_reading import made, name_of, opened, records

# Number of files that TensorFlow reads in parallel, its default.
READ_TOGETHER = 16


def tfds_shards(config: CorpusConfig) -> list[str]:
    """The split as sub-splits of `READ_TOGETHER` files each; only itself if it is a part of a split, or not listed."""
    splits = _splits(config)
    shards = splits[config.split].num_shards if config.split in splits else 1
    starts = range(0, shards, READ_TOGETHER)
    parts = [f"{config.split}[{i}shard:{min(i + READ_TOGETHER, shards)}shard]" for i in starts]
    return parts if len(parts) > 1 else [config.split]


def tfds_documents(config: CorpusConfig, split: str) -> Iterator[list[str]]:
    """A document for each record, with the lines of `text_field`; always in the same order."""
    texts = records(_builder(config), config.dataset, split, lambda record: record[config.text_field].decode("utf-8"))
    for text in texts:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if lines:
            yield lines


def tfds_size(config: CorpusConfig) -> int:
    """Bytes of the split's records, a little more than its text; for a part of a split, its share. 0 if not listed."""
    splits = _splits(config)
    if not splits:
        return 0
    part, whole = splits[config.split], splits[re.split(r"\W", config.split)[0]]
    return int(whole.num_bytes * part.num_examples / max(whole.num_examples, 1))


def _splits(config: CorpusConfig) -> tfds.core.splits.SplitDict:
    """The splits that the data set lists, if any. Raises `InputError` where `config.split` isn't in them, not even as a
    part of one."""
    splits = _builder(config).info.splits
    try:
        if splits:
            splits[config.split]
    except (ValueError, KeyError) as error:
        raise InputError(f"{name_of(config.dataset)}, split {config.split!r}: {first_line(error)}") from None
    return splits


def _builder(config: CorpusConfig) -> tfds.core.DatasetBuilder:
    """The data set, downloaded and made if it isn't there yet."""
    builder = opened(config.dataset, config.data_dir)
    fields = [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Text)]
    if config.text_field not in fields:
        hint = f"--corpus.text-field is one of {', '.join(fields)}" if fields else "it has none"
        raise InputError(f"{name_of(config.dataset)} has no text feature {config.text_field!r}; {hint}")
    return made(builder, config.dataset)
