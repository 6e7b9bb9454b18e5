"""An estimate, from a sample of a corpus, of what `prepare` would make of it and how long that takes."""

import dataclasses
import tempfile
import time
from pathlib import Path

from bert_jax.config import InputError, PretrainConfig
from bert_jax.data import corpora, tokenizer_folders, tokenizers
from bert_jax.data.building import Job, work
from bert_jax.data.corpora import Chunk
from bert_jax.data.prepare import empty, sequence_lengths
from bert_jax.data.report import describe, report_documents
from bert_jax.data.shards import Counts, ShardWriter
from bert_jax.data.workers import granted_cores
from bert_jax.files.printable import say

SAMPLED = 24  # chunks


def dry_run(config: PretrainConfig) -> dict[str, float]:
    """Prints the estimates and returns them by name; writes nothing that stays.

    Plain files are sampled evenly, other sources at their beginning. Without `tokenizer.path` the vocabulary is
    trained on the sample.
    """
    sizes = corpora.sizes(config.corpus)
    chunks, whole = _sample(config, sum(sizes.values()))
    size = sum(chunk.size for chunk in chunks)
    if not size:
        raise InputError(empty(config))
    times = 1.0 if whole else max(sum(sizes.values()) / size, 1.0)  # Size of the corpus over that of the sample.
    start = time.perf_counter()
    tokenizer = _tokenizer(config, chunks)
    trained = time.perf_counter() - start
    start = time.perf_counter()
    counts, examples, written = _prepared(config, chunks, tokenizer)
    seconds = time.perf_counter() - start
    workers = config.run.workers or granted_cores()
    total = counts.total()
    if not config.tokenizer.path:
        trained *= min(config.tokenizer.training_characters / size, times)
    estimates = {
        "documents": total.documents * times,
        "sentences": total.sentences * times,
        "tokens": total.tokens * times,
        "unknown_rate": total.unknown / max(total.tokens, 1),
        "duplicate_lines": counts.duplicates.share(),
        **{f"examples_{length}": number * times for length, number in examples.items()},
        "disk_bytes": written * times,
        "seconds": seconds * times / workers + trained,
    }
    say(f"corpus           {times * size / 1e6:,.1f} MB of text, of which {size / 1e6:,.1f} MB were sampled")
    for name in ("documents", "sentences", "tokens"):
        say(f"{name:16} {estimates[name]:,.0f}")
    for source, statistics in counts.sources.items():
        say(f"  {source}: {describe(statistics)} in the sample")
    say(f"unknown tokens   {estimates['unknown_rate']:.3%}")
    say(f"duplicate lines  {estimates['duplicate_lines']:.1%} of the sample's; the whole can have more")
    for length in examples:
        say(f"examples         {estimates[f'examples_{length}']:,.0f} of length {length}")
    report_documents(total, counts.random_shares(examples) if config.examples.sentence_pairs else None)
    say(f"disk             {estimates['disk_bytes'] / 1e6:,.0f} MB")
    vocabulary = f"{trained:,.0f} s of it for the vocabulary"
    say(f"time             {estimates['seconds']:,.0f} s in {workers} processes, {vocabulary}")
    return estimates


def _sample(config: PretrainConfig, size: int) -> tuple[list[Chunk], bool]:
    """A sample of the corpus's chunks, and whether it is the whole corpus."""
    every = max(size // corpora.CHUNK_BYTES // SAMPLED, 1)
    sampled: list[Chunk] = []
    for number, chunk in enumerate(corpora.chunks(config.corpus)):
        if len(sampled) == SAMPLED:
            return sampled, False
        if chunk.read or number % every == 0:
            sampled.append(chunk)
    return sampled, every == 1


def _tokenizer(config: PretrainConfig, chunks: list[Chunk]) -> tokenizers.Tokenizer:
    if config.tokenizer.path:
        return tokenizer_folders.load(config.tokenizer.path, config.tokenizer)
    documents = (document for chunk in chunks for document in chunk.documents(config.corpus.clean))
    return tokenizers.train([line for document in documents for line in document], config.tokenizer)


def _prepared(
    config: PretrainConfig, chunks: list[Chunk], tokenizer: tokenizers.Tokenizer
) -> tuple[Counts, dict[int, int], int]:
    """Prepares the sample in a temporary folder: its counts, numbers of examples by length, and bytes."""
    whole = dataclasses.replace(config.corpus, held_out=0.0)
    job = Job("train", whole, config.examples, sequence_lengths(config), config.seed)
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder), "train", job.lengths, corpora.sizes(config.corpus))
        for number, chunk in enumerate(chunks):
            writer.add(0, chunk.source, work(chunk, number, None, job, tokenizer))
        writer.close()
        entries, counts = writer.summary()
    examples = {length: sum(shard["examples"] for shard in shards) for length, shards in entries.items()}
    return counts, examples, sum(shard["bytes"] for shards in entries.values() for shard in shards)
