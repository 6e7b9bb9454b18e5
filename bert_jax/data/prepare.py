"""Corpus to examples on disk: in several processes, in bounded memory, whole or not at all.

The corpus is read once, in order, and cut into chunks of documents. A worker turns each chunk into one shard for
every split and sequence length. What it makes depends on the chunk and the seed only, not on the number of workers.
"""

import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bert_jax.config import ExamplesConfig, InputError, PretrainConfig, to_dict
from bert_jax.data import corpora, tokenizers
from bert_jax.data.examples import build, record_type, split_sentences, to_record
from bert_jax.data.records import FORMAT, SPLITS, Examples, write_shard
from bert_jax.data.tokenizers import UNK

CHUNK_CHARACTERS = 1 << 22
ENCODED_AT_ONCE = 1 << 11  # sentences
# Lines with the same text in a larger share than this are warned about: the loss gets stuck on them.
DUPLICATES_WARNED = 0.1


def prepare(config: PretrainConfig, output: str | Path, overwrite: bool = False) -> Examples:
    """Makes the folder `output` with the examples of `config` for the lengths of all its phases.

    Raises `InputError`, with nothing written, where the folder is taken, the corpus can't be read or is empty.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not overwrite:
        raise InputError(f"{output}: exists; choose another folder, or --overwrite it")
    partial = output.with_name(output.name + ".partial")
    tokenizer = _tokenizer(config)
    made = [folder for folder in (output.parent, *output.parent.parents) if not folder.exists()]
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(config, tokenizer, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            folder.rmdir()
        raise
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)
    return Examples(output)


def training_text(config: PretrainConfig) -> Iterator[str]:
    """The lines of the training documents."""
    for document in corpora.documents(config.corpus):
        if not corpora.is_held_out(document, config.corpus.held_out):
            yield from document


def _tokenizer(config: PretrainConfig) -> tokenizers.Tokenizer:
    if config.tokenizer.path:
        tokenizer = tokenizers.load(config.tokenizer.path, config.tokenizer)
    else:
        lines = training_text(config)
        first = next(lines, None)
        if first is None:
            raise InputError(_empty(config))
        bar = tqdm(itertools.chain([first], lines), desc="tokenizer", unit=" lines", unit_scale=True)
        tokenizer = tokenizers.train(bar, config.tokenizer)
    if config.model.vocab_size and config.model.vocab_size < tokenizer.vocab_size:
        sizes = f"model.vocab_size is {config.model.vocab_size}, the tokenizer has {tokenizer.vocab_size}"
        raise InputError(f"{sizes}; leave model.vocab_size out to take the tokenizer's")
    return tokenizer


def _empty(config: PretrainConfig) -> str:
    name = {"text": " ".join(config.corpus.files), "tfds": config.corpus.dataset}.get(
        config.corpus.source, "python-docs"
    )
    return f"{name}: the corpus is empty; it has no line that isn't blank"


@dataclasses.dataclass
class Statistics:
    """What is counted of a chunk's split, added up in the manifest."""

    documents: int = 0
    lines: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown: int = 0

    def add(self, other: "Statistics") -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker needs besides its chunks."""

    tokenizer: dict
    examples: ExamplesConfig
    held_out: float
    lengths: tuple[int, ...]
    seed: int
    folder: Path


def _write(config: PretrainConfig, tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    lengths = tuple(sorted({phase.sequence_length for phase in config.phases}))
    job = Job(tokenizer.to_dict(), config.examples, config.corpus.held_out, lengths, config.seed, folder)
    statistics = {split: Statistics() for split in SPLITS}
    shards = {str(length): {split: [] for split in SPLITS} for length in lengths}
    unigram_counts = np.zeros(tokenizer.vocab_size, np.int64)
    duplicates = DuplicateLines()
    with tqdm(desc="examples", unit=" characters", unit_scale=True) as bar:
        for result in _in_workers(job, _chunks(corpora.documents(config.corpus)), config.run.workers):
            for split in SPLITS:
                statistics[split].add(result.statistics[split])
            for (split, length), shard in result.shards.items():
                shards[str(length)][split].append(shard)
            unigram_counts += result.unigram_counts
            duplicates.add(result.line_hashes)
            bar.update(result.characters)
    total = sum(s.tokens for s in statistics.values())
    if not any(s["train"] for s in shards.values()):
        raise InputError(_empty(config) if not total else "every document is held out; lower corpus.held_out")
    manifest = {
        "format": FORMAT,
        "tokenizer": tokenizers.fingerprint(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "record": f"{record_type(tokenizer.vocab_size)}: label, second segment's start, length, ids",
        "splits": {split: dataclasses.asdict(s) for split, s in statistics.items()},
        "unknown_rate": sum(s.unknown for s in statistics.values()) / total,
        "duplicate_lines": duplicates.share(),
        "config": {k: v for k, v in to_dict(config).items() if k in ("seed", "corpus", "tokenizer", "examples")},
        "lengths": shards,
        "unigram_counts": unigram_counts.tolist(),
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer.to_dict()))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    _report(manifest)


def _report(manifest: dict) -> None:
    for split, s in manifest["splits"].items():
        counts = (f"{sum(x['examples'] for x in v[split]):,} of length {k}" for k, v in manifest["lengths"].items())
        print(f"{split}: {s['documents']:,} documents, {s['tokens']:,} tokens; examples: {', '.join(counts)}")
    print(f"unknown tokens {manifest['unknown_rate']:.3%}, duplicate lines {manifest['duplicate_lines']:.1%}")
    if manifest["duplicate_lines"] > DUPLICATES_WARNED:
        print("warning: many lines occur more than once; a model learns them by heart, and its loss says little")
    if not manifest["splits"]["held_out"]["documents"]:
        print("warning: no document is held out, so no loss is measured while training; see corpus.held_out")


def _chunks(documents: Iterable[corpora.Document]) -> Iterator[tuple[int, list[corpora.Document]]]:
    """Numbered lists of whole documents, of `CHUNK_CHARACTERS` together."""
    number, chunk, characters = 0, [], 0
    for document in documents:
        chunk.append(document)
        characters += sum(map(len, document))
        if characters >= CHUNK_CHARACTERS:
            yield number, chunk
            number, chunk, characters = number + 1, [], 0
    if chunk:
        yield number, chunk


def _in_workers(job: Job, chunks: Iterable, workers: int | None) -> Iterator["ChunkResult"]:
    """Runs `_work` on every chunk; results in the chunks' order. At most two chunks a worker are in flight."""
    workers = workers or os.cpu_count()
    # Spawned, not forked: the parent may hold the threads of JAX and TensorFlow.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(job,)) as pool:
        pending = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_work, *chunk))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise InputError("a worker was killed, as by lack of memory; try fewer: --run.workers 1") from None
        finally:
            pool.shutdown(cancel_futures=True)


@dataclasses.dataclass
class ChunkResult:
    characters: int
    statistics: dict[str, Statistics]
    shards: dict[tuple[str, int], dict]
    unigram_counts: np.ndarray
    line_hashes: np.ndarray


_worker_job: Job
_worker_tokenizer: tokenizers.Tokenizer


def _start_worker(job: Job) -> None:
    global _worker_job, _worker_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # The processes are the parallelism.
    _worker_job = job
    _worker_tokenizer = tokenizers.from_dict(job.tokenizer)


def _work(number: int, documents: list[corpora.Document]) -> ChunkResult:
    """One chunk: splits, tokens, examples, shards."""
    job, tokenizer = _worker_job, _worker_tokenizer
    unknown = tokenizer.special_ids[UNK]
    statistics, shards = {}, {}
    for split, part in zip(SPLITS, _split(documents, job.held_out, number == 0), strict=True):
        encoded = _encode(part, tokenizer)
        flat = np.fromiter(itertools.chain.from_iterable(itertools.chain.from_iterable(encoded)), np.int32)
        counts = np.bincount(flat, minlength=tokenizer.vocab_size)
        if split == "train":
            unigram_counts = counts
        lines, sentences = sum(map(len, part)), sum(map(len, encoded))
        statistics[split] = Statistics(len(part), lines, sentences, len(flat), int(counts[unknown]))
        for length in job.lengths:
            rng = random.Random(f"{job.seed} {number} {split} {length}")
            dtype = record_type(tokenizer.vocab_size)
            records = (
                to_record(example, length, tokenizer.special_ids, dtype)
                for example in build(encoded, length, job.examples, rng)
            )
            path = job.folder / str(length) / split / f"{number:05d}.array_record"
            if shard := write_shard(path, records):
                shards[split, length] = shard
    characters = sum(len(line) for document in documents for line in document)
    return ChunkResult(characters, statistics, shards, unigram_counts, _line_hashes(documents))


def _split(documents, share: float, first: bool) -> tuple[list, list]:
    """Training and held-out documents. The first chunk holds at least one out: a small corpus is measured too."""
    held_out = [corpora.is_held_out(document, share) for document in documents]
    if first and share and len(documents) > 1 and not any(held_out):
        held_out[
            min(range(len(documents)), key=lambda i: hashlib.blake2b("\n".join(documents[i]).encode()).digest())
        ] = True
    parts = ([], [])
    for document, out in zip(documents, held_out, strict=True):
        parts[out].append(document)
    return parts


def _encode(documents: list[corpora.Document], tokenizer) -> list[list[list[int]]]:
    """Documents of lines -> documents of sentences of ids; sentences and documents that come out empty are left out."""
    sentences = [[s for line in document for s in split_sentences(line)] for document in documents]
    flat = list(itertools.chain.from_iterable(sentences))
    ids = itertools.chain.from_iterable(
        tokenizer.encode(flat[start : start + ENCODED_AT_ONCE]) for start in range(0, len(flat), ENCODED_AT_ONCE)
    )
    encoded = ([x for x in itertools.islice(ids, len(document)) if x] for document in sentences)
    return [document for document in encoded if document]


def _line_hashes(documents: list[corpora.Document]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(line.encode(), digest_size=8).digest() for d in documents for line in d)
    return np.frombuffer(digests, np.uint64)


class DuplicateLines:
    """The share of lines that occurred before, in bounded memory.

    Exact up to `most` distinct lines; beyond, it keeps those whose hash ends in ever more zeros: a sample of the
    distinct lines with all of their copies, so the share stays an unbiased estimate.
    """

    def __init__(self, most: int = 1 << 18):
        self._most = most
        self._zeros = 0
        self._counts: dict[int, int] = {}

    def add(self, hashes: np.ndarray) -> None:
        for value in hashes[hashes & np.uint64((1 << self._zeros) - 1) == 0].tolist():
            self._counts[value] = self._counts.get(value, 0) + 1
        while len(self._counts) > self._most:
            self._zeros += 1
            mask = (1 << self._zeros) - 1
            self._counts = {value: n for value, n in self._counts.items() if not value & mask}

    def share(self) -> float:
        total = sum(self._counts.values())
        return 1 - len(self._counts) / total if total else 0.0
