"""Lines that occur more than once: counted in a sample, or found exactly to be dropped. Both in bounded memory."""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from bert_jax.config import InputError
from bert_jax.files import storage

# Number of lines (8 bytes each, and 8 more to sort them) that are compared at once.
COMPARED_AT_ONCE = 1 << 25


def line_hashes(lines: Iterable[str]) -> np.ndarray:
    """[n] uint64, a hash of each line."""
    digests = b"".join(hashlib.blake2b(line.encode(), digest_size=8).digest() for line in lines)
    return np.frombuffer(digests, np.uint64)


class DuplicateLines:
    """Estimates the share of lines that are equal to an earlier one.

    Exact up to `most` distinct lines; beyond that, it keeps only lines whose hash ends in more and more zeros: a sample
    of the distinct lines with all their copies, so that the share stays an unbiased estimate.
    """

    def __init__(self, most: int = 1 << 16):
        self._most = most
        self._zeros = 0
        self._counts: dict[int, int] = {}

    def add(self, hashes: np.ndarray) -> None:
        self._add(*np.unique(hashes, return_counts=True))

    def arrays(self) -> dict[str, np.ndarray]:
        """The counts, as arguments for another instance's `merge`."""
        numbers = len(self._counts)
        return {
            "zeros": np.array(self._zeros),
            "hashes": np.fromiter(self._counts, np.uint64, numbers),
            "counts": np.fromiter(self._counts.values(), np.int64, numbers),
        }

    def merge(self, zeros: np.ndarray, hashes: np.ndarray, counts: np.ndarray) -> None:
        self._zeros = max(self._zeros, int(zeros))
        self._drop()
        self._add(hashes, counts)

    def _add(self, hashes: np.ndarray, counts: np.ndarray) -> None:
        kept = hashes & np.uint64((1 << self._zeros) - 1) == 0
        for value, n in zip(hashes[kept].tolist(), counts[kept].tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + n
        while len(self._counts) > self._most:
            self._zeros += 1
            self._drop()

    def _drop(self) -> None:
        mask = (1 << self._zeros) - 1
        self._counts = {value: n for value, n in self._counts.items() if not value & mask}

    def share(self) -> float:
        total = sum(self._counts.values())
        return 1 - len(self._counts) / total if total else 0.0


def find_repeated(hashes: Path, repeated: Path, at_once: int = COMPARED_AT_ONCE) -> int:
    """For a file of uint64 hashes, writes a file with a byte for each: 1 if the same hash is earlier in the file.

    Returns the number of ones. Hashes are compared in rounds, each for one range of values, to bound the memory.
    """
    values = np.memmap(hashes, np.uint64, "r") if hashes.stat().st_size else np.zeros(0, np.uint64)
    rounds = 1 << max(0, (len(values) - 1) // at_once).bit_length()
    width = (1 << 64) // rounds
    count = 0
    with storage.new_file(repeated) as stream:
        stream.truncate(len(values))
    marks = np.memmap(repeated, np.uint8, "r+") if len(values) else np.zeros(0, np.uint8)
    for number in range(rounds):
        low, high = np.uint64(number * width), np.uint64((number + 1) * width - 1)
        positions = np.concatenate(
            [
                start + np.flatnonzero((block >= low) & (block <= high))
                for start in range(0, len(values), at_once)
                for block in [values[start : start + at_once]]
            ]
            or [np.zeros(0, np.int64)]
        )
        chosen = values[positions]
        order = np.argsort(chosen, kind="stable")  # Stable: the earliest of equal hashes comes first.
        chosen = chosen[order]
        again = positions[order[1:][chosen[1:] == chosen[:-1]]]
        marks[again] = 1
        count += len(again)
    return count


class RepeatedLines:
    """Tells which lines of each chunk occurred before in the corpus."""

    def __init__(self, marks: Path, lines: list[int]):
        """`marks` is a file with a byte for each line of the corpus; `lines` are the chunks' numbers of lines."""
        self._marks = marks
        self._starts = np.cumsum([0, *lines])
        self._copy: IO[bytes] | None = None

    def in_chunk(self, number: int) -> np.ndarray:
        """[lines] bool: whether each line of the chunk occurred before."""
        if storage.is_remote(self._marks) and not self._copy:  # Once in each process.
            self._copy = tempfile.NamedTemporaryFile(prefix="bert_jax_")  # noqa: SIM115
            storage.download(self._marks, Path(self._copy.name))
        if number + 2 > len(self._starts):
            raise InputError(f"{self._marks}: damaged (of other text); remove it to have it made again")
        start, end = self._starts[number : number + 2]
        file = self._copy.name if self._copy else self._marks
        return np.fromfile(file, np.uint8, end - start, offset=start).astype(bool)
