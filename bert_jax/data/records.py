"""Examples on disk: a folder of files of fixed-length records, with a manifest that makes them valid.

manifest.json            counts, checksums, the settings that made them
tokenizer.json           the tokenizer, whole
128/train/00000.records ...         one record after the other, as `to_record` makes them
128/held_out/00000.records ...

Files are mapped into memory. (ArrayRecord took 5 microseconds for a record, several times the cost of masking it.)
Files in a bucket are first copied to this machine's cache.
"""

import bisect
import errno
import functools
import json
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from bert_jax.config import InputError, PretrainConfig, versions
from bert_jax.config.files import from_dict, to_dict
from bert_jax.data import tokenizers
from bert_jax.data.examples import HEADER, record_type
from bert_jax.data.workers import granted_cores
from bert_jax.files import contents, storage

SPLITS = ("train", "held_out")
FORMAT = 2
# Files open at once for one split: a process may open about a thousand.
OPEN_SHARDS = 256
AGAIN = "prepare the examples again"
SHARD = {"name": str, "examples": int, "tokens": int, "bytes": int, "crc32": int}
MANIFEST = {
    "format": int,
    "tokenizer": str,
    "splits": {str: {str: int}},
    "config": {"examples": {"word_segmenter": (str, NoneType)}},
    "lengths": {str: {"train": [SHARD], "held_out": [SHARD]}},
    "unigram_counts": [int],
}


def checksum(stream: BinaryIO) -> int:
    crc = 0
    while block := stream.read(1 << 22):
        crc = zlib.crc32(block, crc)
    return crc


class Examples:
    """The examples in a folder. Raises `InputError` naming the file where it isn't whole or has changed."""

    def __init__(self, folder: str | Path):
        self.folder = storage.path(folder)
        self._checked: set[int] = set()
        self._readers: dict[tuple[str, int], ExampleReader] = {}
        file = self.folder / "manifest.json"
        try:
            self.manifest = contents.json_object(file, remedy=AGAIN)
        except (FileNotFoundError, NotADirectoryError):
            hint = "make them with bert-jax prepare" if self.folder.is_dir() else "no such folder"
            raise InputError(f"{self.folder}: holds no examples (no manifest.json); {hint}") from None
        contents.check_values(self.manifest, {"format": int}, file, AGAIN)
        versions.check_format(number := self.manifest["format"], FORMAT, self.folder)
        if number < FORMAT:
            raise InputError(f"{self.folder}: format {number}, this version reads {FORMAT}; {AGAIN}")
        contents.check_values(self.manifest, MANIFEST, file, AGAIN)
        self.manifest = contents.without_checksum(self.manifest, file, AGAIN)
        # Settings of an earlier version, as this one would have written them.
        self.manifest["config"] = to_dict(from_dict(PretrainConfig, self.manifest["config"], f"{file}: config."))
        tokenizers.check_has_words(self.tokenizer, self.folder)
        for problem in self._contradictions():
            raise InputError(f"{file}: damaged ({problem}); {AGAIN}")
        if tokenizers.fingerprint(self.tokenizer) != self.manifest["tokenizer"]:
            file = self.folder / "tokenizer.json"
            raise InputError(f"{file}: not the tokenizer that the examples were made with; prepare them again")

    def _contradictions(self) -> Iterator[str]:
        """Yields what in the manifest doesn't agree with the rest."""
        if (counts := len(self.manifest["unigram_counts"])) != (size := self.tokenizer.vocab_size):
            yield f"unigram_counts of {counts} tokens, but the vocabulary has {size}"
        for length, splits in self.manifest["lengths"].items():
            if not re.fullmatch("[1-9][0-9]{0,8}", length):
                yield f"a length is {length!r:.40}"
                return
            record = np.dtype(self.dtype).itemsize * (HEADER + int(length))
            for shard in (shard for split in SPLITS for shard in splits[split]):
                if not 0 <= shard["examples"] * record == shard["bytes"]:
                    yield f"of length {length}, {shard['examples']} examples in {shard['bytes']} bytes"

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        file = self.folder / "tokenizer.json"
        try:
            return tokenizers.from_dict(contents.json_object(file, remedy=AGAIN), file, AGAIN)
        except FileNotFoundError:
            raise InputError(f"{file}: missing; {AGAIN}") from None

    @property
    def fingerprint(self) -> str:
        """A hash that is equal only for the same tokenizer and the same records in the same order."""
        return f"{zlib.crc32(json.dumps([self.manifest[k] for k in ('tokenizer', 'lengths')]).encode()):08x}"

    @cached_property
    def local(self) -> Path:
        """The local folder with the files to map: the folder itself, or its copy in the cache if it is in a bucket."""
        return storage.cache_folder() / "examples" / self.fingerprint if storage.is_remote(self.folder) else self.folder

    def check_files(self, lengths: Iterable[int]) -> None:
        """Checks the shards' sizes and checksums against the manifest; copies missing files from a bucket."""
        lengths = set(lengths)
        shards = [
            (f"{length}/{split}/{self._name_of(shard)}", shard)
            for length in sorted(lengths)
            for split in SPLITS
            for shard in self.manifest["lengths"].get(str(length), {}).get(split, [])
        ]
        with ThreadPoolExecutor(granted_cores()) as pool:
            problems = pool.map(lambda shard: problem_of(self.local / shard[0], shard[1]), shards)
            wrong = [(*shard, problem) for shard, problem in zip(shards, problems, strict=True) if problem]
            if self.local == self.folder:
                for name, _, problem in wrong:
                    raise InputError(f"{self.folder / name}: {problem}; prepare the examples again")
            elif wrong:
                size = sum(shard["bytes"] for _, shard, _ in wrong)
                with tqdm(total=size, desc=f"copy to {self.local}", unit="B", unit_scale=True) as bar:
                    for copied in pool.map(lambda shard: self._copy(*shard[:2]), wrong):
                        bar.update(copied)
        self._checked |= lengths

    def _name_of(self, shard: dict) -> str:
        return contents.plain_name(shard["name"], self.folder / "manifest.json")

    def _copy(self, name: str, shard: dict) -> int:
        """Copies a file from the bucket, whole or not at all: other processes may do the same. Returns its size."""
        file = self.local / name
        aside = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
        try:
            storage.make_folder(file.parent)
            storage.download(self.folder / name, aside)
        except OSError as error:
            aside.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"{self.local}: no space left; set XDG_CACHE_HOME to a folder on another disk"
                ) from None
            if isinstance(error, FileNotFoundError):
                raise InputError(f"{self.folder / name}: missing; prepare the examples again") from None
            raise
        if problem := problem_of(aside, shard):
            aside.unlink()
            raise InputError(f"{self.folder / name}: {problem}; prepare the examples again")
        os.replace(aside, file)
        return shard["bytes"]

    def split(self, split: str, length: int) -> "ExampleReader":
        """The examples of a split ("train" or "held_out") at a sequence length."""
        lengths = self.manifest["lengths"]
        if str(length) not in lengths:
            prepared = ", ".join(lengths)
            raise InputError(
                f"{self.folder}: no examples of length {length}, only {prepared}; prepare them with this config"
            )
        if (split, length) not in self._readers:  # One reader for all callers: it holds the shards' open files.
            if self.local != self.folder and length not in self._checked:
                self.check_files([length])
            folder, shards = self.local / str(length) / split, lengths[str(length)][split]
            files, counts = [folder / self._name_of(s) for s in shards], [s["examples"] for s in shards]
            self._readers[split, length] = ExampleReader(files, counts, length, self.dtype)
        return self._readers[split, length]

    @property
    def dtype(self) -> str:
        return record_type(self.tokenizer.vocab_size, self.manifest["config"]["examples"]["word_segmenter"] is not None)

    def unigram_log_probabilities(self, vocab_size: int) -> np.ndarray:
        """[vocab_size] log-frequencies of ordinary tokens in the training documents, with 1 added to each count.

        0 for the other ids, which are never predicted: special tokens, and ids of a model beyond its vocabulary.
        """
        counts = np.array(self.manifest["unigram_counts"], np.float64) + 1
        special = list(self.tokenizer.special_ids.values())
        counts[special] = 0
        logs = np.log(counts / counts.sum(), where=counts > 0, out=np.zeros_like(counts))
        return np.pad(logs, (0, vocab_size - len(counts))).astype(np.float32)


def problem_of(file: Path, shard: dict) -> str | None:
    """The problem with a shard's file, by its entry in the manifest; None where there is none."""
    if not file.is_file():
        return "missing"
    size = file.stat().st_size
    if size != shard["bytes"]:
        return f"{size:,} bytes, the manifest says {shard['bytes']:,}"
    with open(file, "rb") as stream:
        return None if checksum(stream) == shard["crc32"] else "damaged (its checksum isn't the manifest's)"


class ExampleReader:
    """Random access to the records of several shards, as if they were one."""

    def __init__(self, files: list[Path], counts: list[int], length: int, dtype: str):
        self.length = length
        self.dtype = dtype
        self._starts = np.cumsum([0, *counts]).tolist()
        self._shard = functools.lru_cache(OPEN_SHARDS)(
            lambda i: np.asarray(np.memmap(files[i], dtype, "r", shape=(counts[i], HEADER + length)))
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """[n] indices -> [n, HEADER + length] int32 records, in the same order."""
        records = np.empty((len(indices), HEADER + self.length), np.int32)
        for record, index in zip(records, indices.tolist(), strict=True):
            shard = bisect.bisect_right(self._starts, index) - 1
            record[:] = self._shard(shard)[index - self._starts[shard]]
        return records
