"""Opens and reads data sets of TensorFlow Datasets; errors name the data set and the file."""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tensorflow_datasets as tfds

from bert_jax.config import InputError, first_line
from bert_jax.data.tensorflow import tf

Record = TypeVar("Record")

# TensorFlow must leave the GPUs to JAX.
tf.config.set_visible_devices([], "GPU")


def opened(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """A data set that may still have to be made, by `made`. Raises `InputError` naming it."""
    try:
        return tfds.builder(dataset, data_dir=data_dir)
    except Exception as error:  # The library, damaged files or the data set's own code can raise anything.
        raise InputError(f"{name_of(dataset)}: {first_line(error)}") from None


def made(builder: tfds.core.DatasetBuilder, dataset: str) -> tfds.core.DatasetBuilder:
    """The data set, downloaded and made if it isn't there yet. Raises `InputError` naming it."""
    try:
        builder.download_and_prepare()
    except Exception as error:  # As above.
        raise InputError(f"{name_of(dataset)}: {first_line(error)}") from None
    return builder


def records(
    builder: tfds.core.DatasetBuilder, dataset: str, split: str, plain: Callable[[dict[str, Any]], Record]
) -> Iterator[Record]:
    """`plain(record)` for each record of a split, always in the same order. Raises `InputError` naming a bad file."""
    try:
        records = builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator()
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(f"{name_of(dataset)}, split {split!r}: {first_line(error)}") from None
    try:
        for record in records:
            yield plain(record)
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        where, error = _first_bad(builder, split, plain) or (builder.data_dir, error)
        if isinstance(error, UnicodeDecodeError):
            byte = f"byte {error.start}: {error.object[error.start]:#04x}"
            problem = f"not UTF-8 ({byte}); make the data set anew from UTF-8 text"
        else:
            problem = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", first_line(error))
            problem += f"; remove {builder.data_dir}, and the data set is made anew"
        raise InputError(f"{name_of(dataset)}, split {split!r}, {where}: {problem}") from None


def name_of(dataset: str) -> str:
    return f"TFDS data set {dataset!r}"


def _first_bad(
    builder: tfds.core.DatasetBuilder, split: str, plain: Callable[[dict[str, Any]], Any]
) -> tuple[str, Exception] | None:
    """The file of the first record that can't be read, and the error; searched, since files are read in parallel."""
    splits = builder.info.splits
    for name in filter(splits.__contains__, re.findall(r"\w+", split)):
        for shard, file in enumerate(splits[name].filepaths):
            number = 0
            try:
                for record in builder.as_dataset(split=f"{name}[{shard}shard]").as_numpy_iterator():
                    number += 1
                    plain(record)
            except UnicodeDecodeError as error:
                return f"{file}, record {number}", error
            except tf.errors.OpError as error:
                return str(file), error
    return None
