"""Shards of examples under way: each is finished whole, or made again, so a run that was killed loses little.

While a folder is prepared, `progress/` in it holds two files for each finished shard: `train-00003.npz`, what was
counted, and, written before it, `train-00003.held_out.json`, the documents of these chunks that aren't trained on.
"""

import dataclasses
import io
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert_jax import storage
from bert_jax.data.building import ChunkResult, Statistics
from bert_jax.data.corpora import Document
from bert_jax.data.duplicates import DuplicateLines
from bert_jax.data.records import checksum


class Counts:
    """What is counted of any number of chunks of one split."""

    def __init__(self):
        self.sources: dict[str, Statistics] = {}
        self.unigrams: np.ndarray | int = 0
        self.random_next: Counter[int] = Counter()
        """Examples of each length whose second segment is from elsewhere."""
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
        """For each length, of that many examples, the share whose second segment is from elsewhere."""
        return {str(length): self.random_next[length] / max(number, 1) for length, number in examples.items()}

    def total(self) -> Statistics:
        total = Statistics()
        for statistics in self.sources.values():
            total.add(statistics)
        return total


class ShardWriter:
    """Writes the shards of one split, for all lengths side by side, in `folder`, which may lie in a bucket."""

    def __init__(self, folder: Path, split: str, lengths: tuple[int, ...], sources: Iterable[str]):
        """`sources` are the names that chunks have; a finished shard knows them by their order alone."""
        self.folder, self._split, self._lengths, self._sources = folder, split, lengths, list(sources)
        self._progress = folder / "progress"
        storage.make_folder(self._progress)
        self._before = frozenset(self.finished())
        self._number: int | None = None

    def is_finished(self, number: int) -> bool:
        """By an earlier run: a bucket isn't asked for each chunk."""
        return number in self._before

    def add(self, number: int, source: str, result: ChunkResult) -> None:
        """Adds a chunk to a shard; numbers never go down, and a higher one finishes the one before it."""
        if number != self._number:
            self.close()
            self._start(number)
        for length, records in result.records.items():
            if records:
                self._file_of(length).writelines(records)
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

    def _file_of(self, length: int) -> BinaryIO:
        if length not in self._files:
            path = self._shard(length)
            storage.make_folder(path.parent)
            if storage.is_remote(path):
                self._files[length] = tempfile.TemporaryFile()  # noqa: SIM115
            else:
                self._files[length] = open(path, "w+b")  # noqa: SIM115
        return self._files[length]

    def close(self) -> None:
        """Finishes the shard under way."""
        if self._number is None:
            return
        entries = {length: self._finish(length, file) for length, file in self._files.items()}
        storage.write_whole(self._file(self._number, "held_out.json"), json.dumps(self._held_out).encode())
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
            **self._counts.duplicates.arrays(),
        )
        storage.write_whole(self._file(self._number, "npz"), counted.getvalue())
        self._number = None

    def _finish(self, length: int, file: BinaryIO) -> dict:
        """Closes a shard's file, where it belongs; returns what the manifest says of it."""
        path = self._shard(length)
        with file:
            size, _ = file.tell(), file.seek(0)
            crc = checksum(file)
            if storage.is_remote(path):
                file.seek(0)
                storage.upload(file, path)
        counts = {"examples": self._examples[length], "tokens": self._tokens[length]}
        return {"name": path.name, **counts, "bytes": size, "crc32": crc}

    def _shard(self, length: int) -> Path:
        return self.folder / str(length) / self._split / f"{self._number:05d}.records"

    def _file(self, number: int, ending: str) -> Path:
        return self._progress / f"{self._split}-{number:05d}.{ending}"

    # ---- What is finished -------------------------------------------------------------------------------------------

    def finished(self) -> list[int]:
        return sorted(int(file.stem.split("-")[1]) for file in self._progress.glob(f"{self._split}-*.npz"))

    def made_of(self, number: int) -> list[dict]:
        """For each chunk of a finished shard, its `text_of`, with the name that its source has now."""
        with np.load(io.BytesIO(self._file(number, "npz").read_bytes())) as arrays:
            made_of = json.loads(str(arrays["about"]))["made_of"]
        names = dict(enumerate(self._sources))
        return [{**text, "source": names.get(text["source"])} for text in made_of]

    def keep(self, numbers: Collection[int]) -> None:
        """Has all other shards made again."""
        folders = [self.folder / str(length) / self._split for length in self._lengths]
        files = {file: file.name.split(".")[0] for folder in folders for file in folder.glob("*.records")}
        for file in self._progress.glob(f"{self._split}-*"):
            files[file] = file.name.split(".")[0].split("-")[1]
        for file, number in files.items():
            if int(number) not in numbers:
                storage.remove(file)
        self._before = frozenset(numbers)

    def held_out(self) -> Iterator[Document]:
        """The held-out documents of all finished shards, in order."""
        for number in self.finished():
            yield from json.loads(self._file(number, "held_out.json").read_bytes())

    def summary(self) -> tuple[dict[int, list[dict]], Counts]:
        """The finished shards' entries for the manifest, by length, and all that was counted."""
        entries: dict[int, list[dict]] = {length: [] for length in self._lengths}
        counts = Counts()
        for number in self.finished():
            with np.load(io.BytesIO(self._file(number, "npz").read_bytes())) as arrays:
                about = json.loads(str(arrays["about"]))
                part = Counts()
                part.sources = {self._sources[int(i)]: Statistics(**values) for i, values in about["sources"].items()}
                part.random_next.update({int(length): n for length, n in about["random_next"].items()})
                part.unigrams = arrays["unigrams"]
                part.duplicates.merge(arrays["zeros"], arrays["hashes"], arrays["counts"])
            counts.merge(part)
            for length, entry in about["entries"].items():
                entries[int(length)].append(entry)
        return entries, counts
