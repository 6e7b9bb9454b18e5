"""What a worker makes of a chunk of the corpus: tokens, examples, records, and statistics."""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Callable, Iterable

import numpy as np

from bert_jax.config import CorpusConfig, ExamplesConfig
from bert_jax.data import corpora, tokenizers, words
from bert_jax.data.corpora import Chunk, Document
from bert_jax.data.duplicates import line_hashes
from bert_jax.data.examples import Ids, build, continues_bit, record_type, to_record, tokens_used
from bert_jax.data.sentences import split_sentences
from bert_jax.data.tokenizers import UNK, Tokenizer

ENCODED_AT_ONCE = 1 << 11  # sentences


@dataclasses.dataclass(frozen=True)
class Job:
    """What the work on a chunk needs besides the chunk; the same for all chunks of a split."""

    split: str
    corpus: CorpusConfig
    examples: ExamplesConfig
    lengths: tuple[int, ...]
    seed: int


@dataclasses.dataclass
class Statistics:
    """Counts of a text."""

    documents: int = 0
    lines: int = 0
    removed_lines: int = 0
    """Lines dropped because they occurred before; not counted in `lines`."""
    characters: int = 0
    sentences: int = 0
    words: int = 0
    """Words as the tokenizer splits them before word pieces: punctuation and single Chinese characters are words."""
    tokens: int = 0
    unknown: int = 0

    def add(self, other: "Statistics") -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """The records for each sequence length, and the counts; held-out documents are returned as they are."""

    records: dict[int, list[bytes]]
    used: dict[int, int]
    """Tokens in the records, special ones included."""
    statistics: Statistics
    unigram_counts: np.ndarray
    line_hashes: np.ndarray
    held_out: list[Document]
    random_next: dict[int, int]
    """Examples whose second segment is from elsewhere."""
    made_of: dict
    """The chunk's `text_of`."""


def text_of(chunk: Chunk, repeated: np.ndarray | None) -> dict:
    """A digest of the chunk's text, wherever its files lie; and where they lie, if they are plain files."""
    left_out = b"" if repeated is None else repeated.tobytes()
    digest = hashlib.blake2b(chunk.digest() + left_out, digest_size=16).hexdigest()
    return {"digest": digest, "source": chunk.source, "parts": parts_of(chunk)}


def parts_of(chunk: Chunk) -> list[list]:
    return [[part.file, part.start, part.end] for part in chunk.parts]


def lines_of(chunk: Chunk, job: Job) -> np.ndarray:
    """[n] the hashes of a chunk's lines, in order."""
    return line_hashes(line for document in chunk.documents(job.corpus.clean) for line in document)


def work(chunk: Chunk, number: int, repeated: np.ndarray | None, job: Job, tokenizer: Tokenizer) -> ChunkResult:
    """The examples of chunk `number`, without the lines that `repeated` marks, if given."""
    documents, removed = _without(list(chunk.documents(job.corpus.clean)), repeated)
    held_out: list[Document] = []
    if job.split == "train" and job.corpus.held_out:
        documents, held_out = hold_out(documents, job.corpus.held_out, at_least_one=number == 0)
    segmenter = job.examples.word_segmenter
    dtype = record_type(tokenizer.vocab_size, segmenter is not None)
    bit = continues_bit(dtype)
    encoded = _encode(documents, words.encoder(tokenizer, segmenter, bit) if segmenter else tokenizer.encode)
    tokens = np.fromiter(itertools.chain.from_iterable(itertools.chain.from_iterable(encoded)), np.int32)
    counts = np.bincount(tokens & (bit - 1) if segmenter else tokens, minlength=tokenizer.vocab_size)
    records, used, random_next = {}, {}, {}
    for length in job.lengths:
        # The draws depend on the chunk and the seed alone: which worker does the work, and when, changes nothing.
        rng = random.Random(f"{job.seed} {job.split} {number} {length}")
        copies = job.examples.dupe_factor if job.split == "train" else 1
        made = [example for _ in range(copies) for example in build(encoded, length, job.examples, rng)]
        records[length] = [to_record(example, length, tokenizer.special_ids, dtype) for example in made]
        used[length] = sum(map(tokens_used, made))
        random_next[length] = sum(label for label, _ in made)
    statistics = Statistics(
        documents=len(documents),
        lines=sum(map(len, documents)),
        removed_lines=removed,
        characters=sum(len(line) for document in documents for line in document),
        sentences=sum(map(len, encoded)),
        words=int(counts[~words.continues_word(tokenizer)].sum()),
        tokens=len(tokens),
        unknown=int(counts[tokenizer.special_ids[UNK]]),
    )
    hashes = line_hashes(line for document in documents for line in document)
    made_of = text_of(chunk, repeated)
    return ChunkResult(records, used, statistics, counts, hashes, held_out, random_next, made_of)


def _without(documents: list[Document], repeated: np.ndarray | None) -> tuple[list[Document], int]:
    """The documents without the marked lines, and the number of those lines."""
    if repeated is None or not repeated.any():
        return documents, 0
    marks = iter(repeated.tolist())
    kept = [[line for line in document if not next(marks)] for document in documents]
    return [document for document in kept if document], int(repeated.sum())


def hold_out(documents: list[Document], share: float, at_least_one: bool) -> tuple[list[Document], list[Document]]:
    """Splits documents into (train, held out). `at_least_one` holds one out in any case, to evaluate a small corpus."""
    held_out = [corpora.is_held_out(document, share) for document in documents]
    if at_least_one and not any(held_out) and len(documents) > 1:
        held_out[min(range(len(documents)), key=lambda i: corpora.hash_fraction(documents[i]))] = True
    train = [document for document, held in zip(documents, held_out, strict=True) if not held]
    return train, [document for document, held in zip(documents, held_out, strict=True) if held]


def _encode(documents: Iterable[Document], encode: Callable[[list[str]], list[Ids]]) -> list[list[Ids]]:
    """Documents of lines -> documents of sentences of ids, without empty sentences and documents."""
    sentences = [[s for line in document for s in split_sentences(line)] for document in documents]
    flat = list(itertools.chain.from_iterable(sentences))
    ids = itertools.chain.from_iterable(
        encode(flat[start : start + ENCODED_AT_ONCE]) for start in range(0, len(flat), ENCODED_AT_ONCE)
    )
    encoded = ([x for x in itertools.islice(ids, len(document)) if x] for document in sentences)
    return [document for document in encoded if document]


# ---- Processes ------------------------------------------------------------------------------------------------------

_tokenizer: Tokenizer


def start_worker(tokenizer: dict) -> None:
    """Sets up a worker process for `work_in_process`."""
    global _tokenizer
    _tokenizer = tokenizers.from_dict(tokenizer)


def work_in_process(chunk: Chunk, number: int, repeated: np.ndarray | None, job: Job) -> ChunkResult:
    """`work` with the tokenizer of this process."""
    return work(chunk, number, repeated, job, _tokenizer)
