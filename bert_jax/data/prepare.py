"""Corpus to examples on disk: in several processes, in bounded memory, whole or not at all.

The corpus is read in order and cut into chunks of documents of one split. Workers turn chunks into records, and
this process writes them into shards, in the chunks' order. What a worker makes depends on its chunk and the seed only:
the number of workers changes nothing.
"""

import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bert_jax.config import ExamplesConfig, InputError, PretrainConfig, to_dict
from bert_jax.data import corpora, tokenizers, words
from bert_jax.data.examples import build, continues_bit, record_type, split_sentences, to_record, tokens_used
from bert_jax.data.records import FORMAT, SPLITS, Examples, shard_entry
from bert_jax.data.tokenizers import UNK

CHUNK_CHARACTERS = 1 << 20
# A shard holds the examples of so many chunks: tens of megabytes, and hundreds of files for all of Wikipedia.
CHUNKS_A_SHARD = 64
ENCODED_AT_ONCE = 1 << 11  # sentences
# Larger shares of repeated lines (the loss gets stuck on them) and of unknown tokens are warned about.
DUPLICATES_WARNED = 0.1
UNKNOWN_WARNED = 0.05


def prepare(config: PretrainConfig, output: str | Path, overwrite: bool = False) -> Examples:
    """Makes the folder `output` with the examples of `config` for the lengths of all its phases.

    Raises `InputError`, with nothing written, where the folder is taken, the corpus can't be read or is empty.
    """
    output = Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not overwrite:
            raise InputError(f"{output}: exists; choose another folder, or --overwrite it")
        if not (output / "manifest.json").is_file():
            raise InputError(f"{output}: holds no examples, so it isn't overwritten; choose another folder")
    if config.examples.word_segmenter:
        words.load(config.examples.word_segmenter)  # Before hours of work.
    partial, old = (output.with_name(f"{output.name}.{suffix}") for suffix in ("partial", "old"))
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
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)
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


def _write(config: PretrainConfig, tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    lengths = tuple(sorted({phase.sequence_length for phase in config.phases}))
    statistics = {split: Statistics() for split in SPLITS}
    writers = {(split, n): ShardWriter(folder / str(n) / split) for split in SPLITS for n in lengths}
    unigram_counts = np.zeros(tokenizer.vocab_size, np.int64)
    duplicates = DuplicateLines()
    used = Counter()  # Places in the records that hold a token, by split and length.
    chunks = _chunks(corpora.documents(config.corpus), config.corpus.held_out)
    job = Job(tokenizer.to_dict(), config.examples, lengths, config.seed)
    with tqdm(desc="examples", unit=" characters", unit_scale=True) as bar:
        for chunk, result in _in_workers(job, chunks, config.run.workers):
            statistics[chunk.split].add(result.statistics)
            for length, records in result.records.items():
                writers[chunk.split, length].write(records, shard=chunk.number // CHUNKS_A_SHARD)
                used[chunk.split, str(length)] += result.used[length]
            if chunk.split == "train":
                unigram_counts += result.unigram_counts
            duplicates.add(result.line_hashes)
            bar.update(chunk.characters)
    shards = {str(n): {split: writers[split, n].close() for split in SPLITS} for n in lengths}
    total = sum(s.tokens for s in statistics.values())
    if not any(s["train"] for s in shards.values()):
        raise InputError(_empty(config) if not total else "every document is held out; lower corpus.held_out")
    manifest = {
        "format": FORMAT,
        "tokenizer": tokenizers.fingerprint(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "record": _record(config, tokenizer),
        "splits": {split: dataclasses.asdict(s) for split, s in statistics.items()},
        "unknown_rate": sum(s.unknown for s in statistics.values()) / total,
        "duplicate_lines": duplicates.share(),
        "config": {k: v for k, v in to_dict(config).items() if k in ("seed", "corpus", "tokenizer", "examples")},
        "lengths": shards,
        "fill": {n: {split: _fill(int(n), shards[n][split], used[split, n]) for split in SPLITS} for n in shards},
        "unigram_counts": unigram_counts.tolist(),
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer.to_dict()))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    _report(manifest)


def _record(config: PretrainConfig, tokenizer: tokenizers.Tokenizer) -> str:
    """What a record holds, in words."""
    segmented = config.examples.word_segmenter is not None
    dtype = record_type(tokenizer.vocab_size, segmented)
    fields = f"{dtype}: label, second segment's start, length, ids"
    return f"{fields}, {continues_bit(dtype)} added to those that continue a word" if segmented else fields


def _fill(length: int, shards: list[dict], used: int) -> float:
    """The share of the places that aren't padding."""
    return used / max(1, length * sum(shard["examples"] for shard in shards))


def _report(manifest: dict) -> None:
    for split, s in manifest["splits"].items():
        counts = (
            f"{sum(x['examples'] for x in v[split]):,} of length {k} ({manifest['fill'][k][split]:.1%} full)"
            for k, v in manifest["lengths"].items()
        )
        print(f"{split}: {s['documents']:,} documents, {s['tokens']:,} tokens; examples: {', '.join(counts)}")
    print(f"unknown tokens {manifest['unknown_rate']:.3%}, duplicate lines {manifest['duplicate_lines']:.1%}")
    if manifest["duplicate_lines"] > DUPLICATES_WARNED:
        print("warning: many lines occur more than once; a model learns them by heart, and its loss says little")
    if manifest["unknown_rate"] > UNKNOWN_WARNED:
        print("warning: many tokens are unknown to the vocabulary; is it one for this language and case?")
    train = manifest["splits"]["train"]
    pairs = manifest["config"]["examples"]["format"] == "sentence_pairs"
    if pairs and train["sentences"] < 2 * train["documents"]:
        print("warning: documents of one sentence have no next one; train without: --examples.format full_sentences")
    if not manifest["splits"]["held_out"]["documents"]:
        print("warning: no document is held out, so no loss is measured while training; see corpus.held_out")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Whole documents of one split, of `CHUNK_CHARACTERS` together; numbered within the split."""

    split: str
    number: int
    documents: list[corpora.Document]

    @property
    def characters(self) -> int:
        return sum(len(line) for document in self.documents for line in document)


def _chunks(documents: Iterable[corpora.Document], held_out: float) -> Iterator[Chunk]:
    """Cuts both splits into chunks, apart: a next sentence from elsewhere then comes from the same split."""
    waiting: dict[str, list[corpora.Document]] = {split: [] for split in SPLITS}
    characters, numbers = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)

    def chunk(split: str) -> Chunk:
        if split == "train" and not numbers["train"] and held_out:
            _hold_one_out(waiting, numbers["held_out"])
        made = Chunk(split, numbers[split], waiting[split])
        numbers[split] += 1
        waiting[split], characters[split] = [], 0
        return made

    for document in documents:
        split = "held_out" if corpora.is_held_out(document, held_out) else "train"
        waiting[split].append(document)
        characters[split] += sum(map(len, document))
        if characters[split] >= CHUNK_CHARACTERS:
            yield chunk(split)
    for split in SPLITS:
        if waiting[split]:
            yield chunk(split)


def _hold_one_out(waiting: dict[str, list[corpora.Document]], chunks_held_out: int) -> None:
    """Moves one document out of the first training chunk if none is held out yet: a small corpus is measured too."""
    if not chunks_held_out and not waiting["held_out"] and len(waiting["train"]) > 1:
        chosen = min(waiting["train"], key=corpora.place)
        waiting["train"].remove(chosen)
        waiting["held_out"].append(chosen)


class ShardWriter:
    """Writes the records of one split and length, shard after shard."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._shard: int | None = None
        self._examples = 0
        self._entries: list[dict] = []

    def write(self, records: list[bytes], shard: int) -> None:
        if shard != self._shard:
            self._finish()
            self._shard = shard
        if records:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab") as stream:
                stream.writelines(records)
            self._examples += len(records)

    def close(self) -> list[dict]:
        """The shards' entries for the manifest."""
        self._finish()
        return self._entries

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._shard:05d}.records"

    def _finish(self) -> None:
        if self._examples:
            self._entries.append(shard_entry(self._path, self._examples))
            self._examples = 0


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker needs besides its chunks."""

    tokenizer: dict
    examples: ExamplesConfig
    lengths: tuple[int, ...]
    seed: int


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """What a worker makes of a chunk: the records of each sequence length, and what it counted."""

    records: dict[int, list[bytes]]
    used: dict[int, int]
    """Tokens in the records, special ones included."""
    statistics: Statistics
    unigram_counts: np.ndarray
    line_hashes: np.ndarray


def _in_workers(job: Job, chunks: Iterable[Chunk], workers: int | None) -> Iterator[tuple[Chunk, ChunkResult]]:
    """Runs `_work` on every chunk; results in the chunks' order. At most two chunks a worker are in flight."""
    workers = workers or os.cpu_count()
    # Spawned, not forked: the parent may hold the threads of JAX and TensorFlow.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(job,)) as pool:
        pending = deque()
        try:
            for chunk in chunks:
                pending.append((chunk, pool.submit(_work, chunk)))
                if len(pending) >= 2 * workers:
                    done, future = pending.popleft()
                    yield done, future.result()
            for done, future in pending:
                yield done, future.result()
        except BrokenProcessPool:
            causes = "as by lack of memory (try --run.workers 1), or a script without if __name__ == '__main__'"
            raise InputError(f"a worker ended by itself, {causes}") from None
        finally:
            pool.shutdown(cancel_futures=True)


_worker_job: Job
_worker_tokenizer: tokenizers.Tokenizer


def _start_worker(job: Job) -> None:
    global _worker_job, _worker_tokenizer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # The processes are the parallelism.
    _worker_job = job
    _worker_tokenizer = tokenizers.from_dict(job.tokenizer)


def _end_with_parent() -> None:
    """A parent that is killed can't end its workers."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(chunk: Chunk) -> ChunkResult:
    """One chunk: tokens, examples, records."""
    job, tokenizer = _worker_job, _worker_tokenizer
    segmenter = job.examples.word_segmenter
    dtype = record_type(tokenizer.vocab_size, segmenter is not None)
    encode = words.encoder(tokenizer, segmenter, continues_bit(dtype)) if segmenter else tokenizer.encode
    documents = _encode(chunk.documents, encode)
    tokens = np.fromiter(itertools.chain.from_iterable(itertools.chain.from_iterable(documents)), np.int32)
    if segmenter:
        tokens &= continues_bit(dtype) - 1
    counts = np.bincount(tokens, minlength=tokenizer.vocab_size)
    records, used = {}, {}
    for length in job.lengths:
        rng = random.Random(f"{job.seed} {chunk.split} {chunk.number} {length}")
        copies = job.examples.dupe_factor if chunk.split == "train" else 1
        made = [example for _ in range(copies) for example in build(documents, length, job.examples, rng)]
        records[length] = [to_record(example, length, tokenizer.special_ids, dtype) for example in made]
        used[length] = sum(map(tokens_used, made))
    statistics = Statistics(
        documents=len(chunk.documents),
        lines=sum(map(len, chunk.documents)),
        sentences=sum(map(len, documents)),
        tokens=len(tokens),
        unknown=int(counts[tokenizer.special_ids[UNK]]),
    )
    return ChunkResult(records, used, statistics, counts, _line_hashes(chunk.documents))


def _encode(documents: list[corpora.Document], encode) -> list[list[list[int]]]:
    """Documents of lines -> documents of sentences of ids; sentences and documents that come out empty are left out."""
    sentences = [[s for line in document for s in split_sentences(line)] for document in documents]
    flat = list(itertools.chain.from_iterable(sentences))
    ids = itertools.chain.from_iterable(
        encode(flat[start : start + ENCODED_AT_ONCE]) for start in range(0, len(flat), ENCODED_AT_ONCE)
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

    def __init__(self, most: int = 1 << 16):
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
