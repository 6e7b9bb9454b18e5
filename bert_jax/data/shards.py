"""Writes shards of examples: each is finished whole or made again, so that a killed run loses little.

While a folder is prepared, `progress/` in it holds two files for each finished shard: `train-00003.npz` with the
counts and, written before it, `train-00003.held_out.json` with the held-out documents of its chunks.
"""

import dataclasses
import io
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert_jax.config import InputError, first_line
from bert_jax.data import leftovers
from bert_jax.data.building import ChunkResult, Statistics
from bert_jax.data.corpora import Document
from bert_jax.data.duplicates import DuplicateLines
from bert_jax.data.records import SHARD, checksum, problem_of
from bert_jax.data.workers import granted_cores
from bert_jax.files import storage
from bert_jax.files.printable import say

# What is in a finished shard's file of counts, beside arrays.
ABOUT = {
    "entries": {str: SHARD},
    "sources": {str: {str: int}},
    "random_next": {str: int},
    "made_of": [{"digest": str, "source": int}],
}


class Counts:
    """The counts of any number of chunks of one split."""

    def __init__(self):
        self.sources: dict[str, Statistics] = {}
        self.unigrams: np.ndarray = np.zeros((), np.int64)
        self.random_next: Counter[int] = Counter()
        """Number of examples of each length whose second segment is from elsewhere."""
        self.duplicates = DuplicateLines()

    def add(self, source: str, result: ChunkResult) -> None:
        self.sources.setdefault(source, Statistics()).add(result.statistics)
        self.unigrams = self.unigrams + result.unigram_counts
        self.random_next.update(result.random_next)
        self.duplicates.add(result.line_hashes)

    def merge(self, other: "Counts") -> None:
        for source, statistics in other.sources.items():
            self.sources.setdefault(source, Statistics()).add(statistics)
        self.unigrams = self.unigrams + other.unigrams
        self.random_next.update(other.random_next)
        self.duplicates.merge(**other.duplicates.arrays())

    def random_shares(self, examples: dict[int, int]) -> dict[str, float]:
        """For each length, the share of its examples (their number is given) whose second segment is from elsewhere."""
        return {str(length): self.random_next[length] / max(number, 1) for length, number in examples.items()}

    def total(self) -> Statistics:
        total = Statistics()
        for statistics in self.sources.values():
            total.add(statistics)
        return total


class ShardWriter:
    """Writes the shards of one split, for all lengths at once, to `folder`, which may be in a bucket."""

    def __init__(self, folder: Path, split: str, lengths: tuple[int, ...], sources: Iterable[str]):
        """`sources` are the names of the chunks' sources; a finished shard refers to them by their order alone."""
        self.folder, self._split, self._lengths, self._sources = folder, split, lengths, list(sources)
        self._progress = folder / "progress"
        storage.make_folder(self._progress)
        self._before = frozenset(self.finished())
        self._number: int | None = None

    def is_finished(self, number: int) -> bool:
        """Whether an earlier run finished the shard. (Looked up once, not in the bucket for each chunk.)"""
        return number in self._before

    def add(self, number: int, source: str, result: ChunkResult) -> None:
        """Adds a chunk to a shard; shard numbers never decrease, and a higher one finishes the shard before it."""
        if number != self._number:
            self.close()
            self._start(number)
        for length, records in result.records.items():
            if records:
                self._file_of(length, number).writelines(records)
            self._examples[length] += len(records)
            self._tokens[length] += result.used[length]
        self._counts.add(source, result)
        self._held_out += result.held_out
        self._made_of.append({**result.made_of, "source": self._sources.index(source)})

    def _start(self, number: int) -> None:
        self._number = number
        self._examples, self._tokens = dict.fromkeys(self._lengths, 0), dict.fromkeys(self._lengths, 0)
        self._files: dict[int, BinaryIO] = {}
        self._counts = Counts()
        self._held_out: list[Document] = []
        self._made_of: list[dict] = []

    def _file_of(self, length: int, number: int) -> BinaryIO:
        if length not in self._files:
            path = self._shard(length, number)
            storage.make_folder(path.parent)
            if storage.is_remote(path):
                self._files[length] = tempfile.TemporaryFile()  # noqa: SIM115
            else:
                self._files[length] = storage.new_file(path)
        return self._files[length]

    def close(self) -> None:
        """Finishes the current shard."""
        if self._number is None:
            return
        entries = {length: self._finish(length, self._number, file) for length, file in self._files.items()}
        leftovers.write(self._file(self._number, "held_out.json"), json.dumps(self._held_out).encode())
        sources = {self._sources.index(source): dataclasses.asdict(s) for source, s in self._counts.sources.items()}
        about = {
            "entries": entries,
            "sources": sources,
            "random_next": self._counts.random_next,
            "made_of": self._made_of,
        }
        counted = io.BytesIO()
        np.savez(
            counted,
            about=json.dumps(about),
            unigrams=self._counts.unigrams,
            **self._counts.duplicates.arrays(),  # type: ignore[arg-type]  # Besides its one option, names of arrays.
        )
        leftovers.write(self._file(self._number, "npz"), counted.getvalue())
        self._number = None

    def _finish(self, length: int, number: int, file: BinaryIO) -> dict:
        """Closes a shard's file, or uploads it to its bucket; returns its entry for the manifest."""
        path = self._shard(length, number)
        with file:
            size, _ = file.tell(), file.seek(0)
            crc = checksum(file)
            if storage.is_remote(path):
                file.seek(0)
                storage.upload(file, path)
            else:
                os.fsync(file.fileno())
        counts = {"examples": self._examples[length], "tokens": self._tokens[length]}
        return {"name": path.name, **counts, "bytes": size, "crc32": crc}

    def _shard(self, length: int, number: int) -> Path:
        return self.folder / str(length) / self._split / f"{number:05d}.records"

    def _file(self, number: int, ending: str) -> Path:
        return self._progress / f"{self._split}-{number:05d}.{ending}"

    # ---- What is finished -------------------------------------------------------------------------------------------

    def finished(self) -> list[int]:
        """The numbers of the finished shards, ascending."""
        numbers = {_number(file) for file in self._progress.glob(f"{self._split}-*.npz")}
        return sorted(number for number in numbers if number is not None)

    def drop_damaged(self) -> None:
        """Removes finished shards with a file that has changed since it was written, so that they are made again."""
        finished = self.finished()
        with ThreadPoolExecutor(granted_cores()) as pool:
            whole = {n for n, is_whole in zip(finished, pool.map(self._is_whole, finished), strict=True) if is_whole}
        if again := len(finished) - len(whole):
            say(f"{again} of {len(finished)} finished shards are damaged, and are made again", file=sys.stderr)
            self.keep(whole)

    def _is_whole(self, number: int) -> bool:
        """Whether a shard's files are as they were written. (A bucket checks the records itself.)"""
        try:
            entries = self._read(number).entries.items()
            self._read_held_out(number)
        except (FileNotFoundError, leftovers.Damaged):
            return False
        files = ((self._shard(length, number), entry) for length, entry in entries)
        return all(file.exists() if storage.is_remote(file) else not problem_of(file, entry) for file, entry in files)

    def _read(self, number: int) -> "Finished":
        """What a finished shard's file of counts holds. Raises `leftovers.Damaged` or FileNotFoundError."""
        content = leftovers.read(file := self._file(number, "npz"))
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                about = leftovers.value(str(arrays["about"]), ABOUT, file)
                counts = Counts()
                counts.unigrams = arrays["unigrams"].astype(np.int64, casting="safe").reshape(-1)
                if not 0 <= (zeros := arrays["zeros"]) <= 64:
                    raise ValueError(f"zeros is {zeros}")
                counts.duplicates.merge(zeros, arrays["hashes"], arrays["counts"])
            counts.sources = {self._sources[int(i)]: Statistics(**values) for i, values in about["sources"].items()}
            counts.random_next.update({int(length): n for length, n in about["random_next"].items()})
            entries = {int(length): entry for length, entry in about["entries"].items()}
            names = {self._shard(length, number).name for length in self._lengths}
            if entries.keys() - {*self._lengths} or {entry["name"] for entry in entries.values()} - names:
                raise ValueError("it is of other lengths or files")
        except Exception as error:  # Whatever is wrong with it, it is made again.
            raise leftovers.Damaged(f"{file}: damaged ({first_line(error)})") from None
        return Finished(entries, counts, about["made_of"])

    def _read_held_out(self, number: int) -> list[Document]:
        return leftovers.read_json(self._file(number, "held_out.json"), [[str]])

    def made_of(self, number: int) -> list[dict]:
        """The `text_of` each chunk of a finished shard, with its source's present name."""
        names = dict(enumerate(self._sources))
        return [{**text, "source": names.get(text["source"])} for text in self._read(number).made_of]

    def keep(self, numbers: Collection[int]) -> None:
        """Keeps the shards with these numbers; removes all others, so that they are made again."""
        folders = [self.folder / str(length) / self._split for length in self._lengths]
        for file in [
            *self._progress.glob(f"{self._split}-*"),
            *chain(*(folder.glob("*.records") for folder in folders)),
        ]:
            if _number(file) not in numbers:
                storage.remove(file)
        self._before = frozenset(numbers)

    def held_out(self) -> Iterator[Document]:
        """The held-out documents of all finished shards, in order."""
        for number in self.finished():
            yield from self._read_held_out(number)

    def summary(self) -> tuple[dict[int, list[dict]], Counts]:
        """The finished shards' entries for the manifest, by length, and the sum of their counts."""
        entries: dict[int, list[dict]] = {length: [] for length in self._lengths}
        counts = Counts()
        for number in self.finished():
            finished = self._read(number)
            if counts.unigrams.shape not in ((), finished.counts.unigrams.shape):
                file = self._file(number, "npz")
                raise InputError(f"{file}: damaged (of another vocabulary); remove {self.folder} to begin anew")
            counts.merge(finished.counts)
            for length, entry in finished.entries.items():
                entries[length].append(entry)
        return entries, counts


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a finished shard holds."""

    entries: dict[int, dict]
    """Its entries for the manifest, by length."""
    counts: Counts
    made_of: list[dict]
    """The `text_of` each of its chunks, with the number of its source."""


def _number(file: Path) -> int | None:
    """Number of the shard that a file belongs to: 3 for train-00003.npz and 00003.records; None for other files."""
    match = re.match(r"(?:\w+-)?(\d+)\.", file.name, re.ASCII)
    return int(match[1]) if match else None
