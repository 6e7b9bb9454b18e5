"""Makes examples on disk of a corpus: in several processes, in bounded memory, and resumable.

The corpus is cut into chunks of about a megabyte. Workers turn chunks into records, and this process writes them into
shards, in the chunks' order. A worker's result depends only on its chunk and the seed, and a shard is finished whole
or made again: neither the number of workers nor an interruption changes a byte. Held-out documents are set aside
meanwhile, and become chunks of their own at the end, so that random next sentences come from the same split.
"""

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bert_jax.config import InputError, PretrainConfig, TokenizerConfig
from bert_jax.config.files import to_dict
from bert_jax.data import corpora, duplicates, leftovers, resuming, tokenizer_folders, tokenizers
from bert_jax.data.building import Job, hold_out, lines_of, start_worker, work_in_process
from bert_jax.data.corpora import Chunk, Piece
from bert_jax.data.duplicates import RepeatedLines
from bert_jax.data.examples import continues_bit, record_type
from bert_jax.data.records import FORMAT, SPLITS, Examples, checksum
from bert_jax.data.report import report
from bert_jax.data.shards import Counts, ShardWriter
from bert_jax.data.workers import in_workers
from bert_jax.files import contents, folders, storage
from bert_jax.files.printable import say

# The desired number of shards, and the least and most chunks in one: a run that is killed loses less than one shard.
SHARDS = 256
CHUNKS_A_SHARD = (4, 256)

EXAMPLES = folders.Made("examples", ((("manifest.json",), r"[1-9]\d*"),))


def prepare(
    config: PretrainConfig,
    output: str | Path,
    overwrite: bool = False,
    engine: "Engine | None" = None,
    tokenizer: tokenizers.Tokenizer | None = None,
) -> Examples:
    """Makes the folder `output` with the examples of `config` for the lengths of all its phases.

    They are made in `output`.partial, where a stopped run continues; it is renamed when it is whole. In a bucket,
    where nothing can be renamed, they are made in `output` itself, and the manifest, written last, makes them valid.
    `engine` does the work (None: `run.workers` processes of this machine) with `tokenizer` (None: the config's). Raises
    `InputError` where the folder is taken, or the corpus can't be read or is empty; if no shard was finished, nothing
    is left.
    """
    output = storage.path(output)
    remote = storage.is_remote(output)
    if not remote:
        output = folders.replaceable(output)
    partial = output if remote else storage.path(output.with_name(f"{output.name}.partial"))
    replaces = EXAMPLES if overwrite else None
    _check_free(output, replaces)
    job = resuming.job_of(config, tokenizer)
    storage.refuse_link(partial)
    with folders.exclusive(partial) as partial_lock, folders.held(output) as lock:
        resuming.check_own(partial)
        _check_free(output, replaces)  # Another process may have made it meanwhile.
        changed = resuming.begin(partial, job, overwrite)
        with resuming.kept_if_begun(partial):
            if changed or not resuming.is_done(partial):
                storage.remove(partial / "manifest.json")
                for writer in _writers(config, partial):
                    writer.drop_damaged()
                if changed:
                    _keep_same(config, partial, job, changed)
                _write(config, _tokenizer(config, partial, tokenizer), partial, engine or Processes(config.run.workers))
                resuming.write_done(partial, job)
        if not remote:
            storage.sync(partial)  # This may take a while; without what is removed next, a run couldn't continue.
        storage.remove(partial / "progress")
        if not remote:
            folders.put_in_place(partial, partial_lock, output, lock, replaces)
        storage.remove(output / "job.json")  # Last: with it, a run that is stopped before goes on here.
    examples = Examples(output)
    report(examples.manifest)
    return examples


def is_unfinished(output: Path) -> bool:
    """Whether the folder is in a bucket, and a stopped run left it unfinished."""
    return storage.is_remote(output) and (output / "job.json").exists()


def is_missing(output: Path) -> bool:
    """Whether the examples have to be prepared: there is nothing, or a stopped run left it unfinished."""
    return not folders.is_taken(output) or is_unfinished(output)


def _check_free(output: Path, replaces: folders.Made | None) -> None:
    if not is_unfinished(output):
        folders.check_free(output, replaces)


def sequence_lengths(config: PretrainConfig) -> tuple[int, ...]:
    """The sequence lengths of all phases, each once, ascending."""
    return tuple(sorted({phase.sequence_length for phase in config.phases}))


# ---- Tokenizer ------------------------------------------------------------------------------------------------------


def _tokenizer(
    config: PretrainConfig, folder: Path, tokenizer: tokenizers.Tokenizer | None = None
) -> tokenizers.Tokenizer:
    """The tokenizer that an earlier run left in the folder, else the given one, else the config's."""
    file = _tokenizer_file(folder)
    if (left := leftovers.read_if_whole(file, {"kind": str})) is not None:
        return tokenizers.from_dict(left, file, f"remove {folder} to begin anew")
    if tokenizer is None and config.tokenizer.path:
        tokenizer = tokenizer_folders.load(config.tokenizer.path, config.tokenizer)
    elif tokenizer is None:
        tokenizer = tokenizers.train(TokenizerSample(config), config.tokenizer)
    if config.model.vocab_size and config.model.vocab_size < tokenizer.vocab_size:
        sizes = f"model.vocab_size is {config.model.vocab_size}, the tokenizer has {tokenizer.vocab_size}"
        raise InputError(f"{sizes}; leave model.vocab_size out to take the tokenizer's")
    tokenizers.check_has_words(tokenizer, config.tokenizer.path or "the tokenizer")
    if config.examples.format == "sentence_pairs":
        tokenizer.layout.check_bert_pairs()
    storage.make_folder(file.parent)
    leftovers.write(file, json.dumps(tokenizer.to_dict()).encode())
    return tokenizer


def _tokenizer_file(folder: Path) -> Path:
    """The tokenizer's file until the folder is whole."""
    return folder / "progress" / "tokenizer.json"


class TokenizerSample:
    """The lines that a vocabulary is trained on, from chunks spread over each source; iterable many times."""

    def __init__(self, config: PretrainConfig):
        self._config = config
        self._rates = sampling_rates(corpora.sizes(config.corpus), config.tokenizer)

    def __iter__(self) -> Iterator[str]:
        corpus = self._config.corpus
        taken = dict.fromkeys(self._rates, 0.0)
        most = 2 * self._config.tokenizer.training_characters  # If a source's size is unknown or guessed too low.
        characters = 0
        with tqdm(desc="tokenizer", unit=" characters", unit_scale=True) as bar:
            for number, chunk in enumerate(corpora.chunks(corpus)):
                before = math.ceil(taken[chunk.source])
                taken[chunk.source] += self._rates[chunk.source]
                for _ in range(math.ceil(taken[chunk.source]) - before):
                    for document in self._documents(chunk, number):
                        yield from document
                        characters += (size := sum(map(len, document)))
                        bar.update(size)
                if characters > most:
                    break
        if not characters:
            raise InputError(empty(self._config))

    def _documents(self, chunk: Chunk, number: int) -> list[corpora.Document]:
        documents = list(chunk.documents(self._config.corpus.clean))
        return hold_out(documents, self._config.corpus.held_out, at_least_one=number == 0)[0]


def sampling_rates(sizes: dict[str, int], config: TokenizerConfig) -> dict[str, float]:
    """How many times the text of each source is taken, for about `training_characters` in total.

    A source of n bytes has a share proportional to n^(1 / temperature) (arXiv 1901.07291, section 3.1); all of a source
    of unknown size (0) is taken.
    """
    weights = {source: size ** (1 / config.temperature) for source, size in sizes.items()}
    wanted = min(config.training_characters, sum(sizes.values()))
    total = sum(weights.values())
    return {source: wanted * weights[source] / total / size if size else 1.0 for source, size in sizes.items()}


def empty(config: PretrainConfig) -> str:
    """The error message for an empty corpus."""
    name = {"text": " ".join(config.corpus.files), "tfds": config.corpus.dataset}.get(
        config.corpus.source, "python-docs"
    )
    return f"{name}: the corpus is empty; it has no line that isn't blank"


# ---- Examples -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Calls:
    """The work that makes a split: its chunks, in order, each with the other arguments of `building.work`."""

    pieces: Callable[[], Iterable[Chunk | Piece]]
    job: Job
    tokenizer: tokenizers.Tokenizer
    chunks_a_shard: int
    repeated: RepeatedLines | None = None
    size: int | None = None
    """Size of the text in bytes, where it is known."""

    def __iter__(self) -> Iterator[tuple[Chunk, int, np.ndarray | None, Job]]:
        for call in _numbered(self.pieces(), self.repeated):
            yield *call, self.job


def _numbered(pieces: Iterable[Chunk | Piece], repeated: RepeatedLines | None) -> Iterator[resuming.Numbered]:
    for number, chunk in enumerate(chain.from_iterable(map(corpora.chunks_of, pieces))):
        yield chunk, number, repeated.in_chunk(number) if repeated else None


Engine = Callable[[ShardWriter, Calls], None]


class Processes:
    """Writes a split's shards, using several processes of this machine."""

    def __init__(self, workers: int | None):
        self._workers = workers

    def __call__(self, writer: ShardWriter, calls: Calls) -> None:
        with tqdm(total=calls.size, desc=f"{calls.job.split} examples", unit="B", unit_scale=True) as bar:

            def unfinished():
                for call in calls:
                    if writer.is_finished(call[1] // calls.chunks_a_shard):
                        bar.update(call[0].size)
                    else:
                        yield call

            start = (calls.tokenizer.to_dict(),)
            results = in_workers(work_in_process, unfinished(), self._workers, start_worker, start)
            for (chunk, number, *_), result in results:
                writer.add(number // calls.chunks_a_shard, chunk.source, result)
                bar.update(chunk.size)
        writer.close()


def _write(config: PretrainConfig, tokenizer: tokenizers.Tokenizer, folder: Path, engine: Engine) -> None:
    """Writes both splits, then the manifest, which makes them valid."""
    lengths = sequence_lengths(config)
    size = sum(corpora.sizes(config.corpus).values())
    repeated = _repeated_lines(config, folder, size) if config.corpus.deduplicate else None
    job = Job("train", config.corpus, config.examples, lengths, config.seed)
    train, held_out = _writers(config, folder)
    pieces = functools.partial(corpora.pieces, config.corpus)
    engine(train, Calls(pieces, job, tokenizer, _chunks_a_shard(size), repeated, size))
    # These documents are cleaned already, and all of them belong to their split.
    job = dataclasses.replace(
        job, split="held_out", corpus=dataclasses.replace(config.corpus, held_out=0.0, clean=False)
    )
    engine(held_out, Calls(lambda: [Piece("held_out", train.held_out)], job, tokenizer, _chunks_a_shard(size)))
    _write_manifest(config, tokenizer, folder, {"train": train.summary(), "held_out": held_out.summary()})


def _writers(config: PretrainConfig, folder: Path) -> tuple[ShardWriter, ShardWriter]:
    sources = {"train": corpora.sizes(config.corpus), "held_out": ["held_out"]}
    train, held_out = (ShardWriter(folder, split, sequence_lengths(config), sources[split]) for split in SPLITS)
    return train, held_out


def _chunks_a_shard(size: int) -> int:
    return min(max(size // corpora.CHUNK_BYTES // SHARDS, CHUNKS_A_SHARD[0]), CHUNKS_A_SHARD[1])


def _keep_same(config: PretrainConfig, folder: Path, job: dict, was: dict) -> None:
    """Keeps the finished shards whose text is the same, where the corpus's files have changed since they were made."""
    storage.remove(folder / "progress" / "lines.json")
    size = sum(corpora.sizes(config.corpus).values())
    repeated = _repeated_lines(config, folder, size) if config.corpus.deduplicate else None
    train, held_out = _writers(config, folder)
    chunks = _numbered(corpora.pieces(config.corpus), repeated)
    resuming.keep_same(train, chunks, _chunks_a_shard(size), was, job["text"])
    held_out.keep(())
    if isinstance(job["tokenizer"], dict):  # It is trained on the text.
        before = leftovers.read_if_whole(_tokenizer_file(folder), {"kind": str})
        now = tokenizers.train(TokenizerSample(config), config.tokenizer).to_dict()
        if before != now:
            say("the text has changed, and its vocabulary is another: all shards are made again")
            train.keep(())
            leftovers.write(_tokenizer_file(folder), json.dumps(now).encode())
    resuming.write_job(folder, job)


def _repeated_lines(config: PretrainConfig, folder: Path, size: int) -> RepeatedLines:
    """The repeated lines of the corpus, which is read once for that."""
    marks, counts = (folder / "progress" / name for name in ("lines.repeated", "lines.json"))
    storage.make_folder(counts.parent)
    left = leftovers.read_if_whole(counts, {"lines": [int], "marks": int})
    whole = left and (storage.is_remote(marks) or left["marks"] == _checksum(marks))
    if left and not whole:
        say(f"{marks}: damaged; it is made again", file=sys.stderr)
    if not whole:
        mirror = storage.Mirror(counts.parent)
        hashes = mirror.folder / "lines.hashes"
        job = Job("train", config.corpus, config.examples, (), config.seed)
        lines = []
        with storage.new_file(hashes) as stream, tqdm(total=size, desc="lines", unit="B", unit_scale=True) as bar:
            calls = ((chunk, job) for chunk in corpora.chunks(config.corpus))
            for (chunk, _), chunk_hashes in in_workers(lines_of, calls, config.run.workers):
                stream.write(chunk_hashes.tobytes())
                lines.append(len(chunk_hashes))
                bar.update(chunk.size)
        duplicates.find_repeated(hashes, mirror.folder / marks.name)
        hashes.unlink()
        left = {"lines": lines, "marks": _checksum(mirror.folder / marks.name)}
        mirror.upload()
        leftovers.write(counts, json.dumps(left).encode())
    return RepeatedLines(marks, left["lines"])


def _checksum(file: Path) -> int | None:
    try:
        with open(file, "rb") as stream:
            return checksum(stream)
    except FileNotFoundError:
        return None


def _write_manifest(config: PretrainConfig, tokenizer: tokenizers.Tokenizer, folder: Path, summaries: dict) -> None:
    entries = {split: entries for split, (entries, _) in summaries.items()}
    counts: dict[str, Counts] = {split: counts for split, (_, counts) in summaries.items()}
    everything = Counts()
    for split in SPLITS:
        everything.merge(counts[split])
    total = everything.total()
    if not any(entries["train"].values()):
        raise InputError(empty(config) if not total.tokens else "every document is held out; lower corpus.held_out")
    examples = {length: sum(shard["examples"] for shard in shards) for length, shards in entries["train"].items()}
    manifest = {
        "format": FORMAT,
        "tokenizer": tokenizers.fingerprint(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "record": _record(config, tokenizer),
        "splits": {split: dataclasses.asdict(counts[split].total()) for split in SPLITS},
        "sources": {source: dataclasses.asdict(s) for source, s in counts["train"].sources.items()},
        "unknown_rate": total.unknown / total.tokens,
        "duplicate_lines": everything.duplicates.share(),
        "random_next": counts["train"].random_shares(examples) if config.examples.sentence_pairs else None,
        "config": {k: v for k, v in to_dict(config).items() if k in ("seed", "corpus", "tokenizer", "examples")},
        "lengths": {str(n): {split: entries[split][n] for split in SPLITS} for n in sequence_lengths(config)},
        "unigram_counts": counts["train"].unigrams.tolist(),
    }
    storage.write_whole(folder / "tokenizer.json", json.dumps(tokenizer.to_dict()).encode())
    storage.write_whole(folder / "manifest.json", json.dumps(contents.with_checksum(manifest)).encode())


def _record(config: PretrainConfig, tokenizer: tokenizers.Tokenizer) -> str:
    """A description of what a record holds."""
    segmented = config.examples.word_segmenter is not None
    dtype = record_type(tokenizer.vocab_size, segmented)
    fields = f"{dtype}: label, second segment's start, length, ids"
    return f"{fields}, {continues_bit(dtype)} added to those that continue a word" if segmented else fields
