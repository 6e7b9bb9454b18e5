"""Makes unmasked examples of documents: next-sentence pairs (BERT paper, appendix A.2), whole sentences, packed texts.

An example is `(label, texts)`: the next-sentence label (0: the second segment follows the first, 1: it is from
elsewhere), and the texts that share a row, each as the ids of its one or two segments without special tokens.
"""

import bisect
import random
from collections.abc import Iterator

import numpy as np

from bert_jax.config import ExamplesConfig
from bert_jax.data.layouts import CLS, PAD, SEP

Ids = list[int]
Text = tuple[Ids, ...]
Example = tuple[int, list[Text]]

# Fields before the ids in a record: next-sentence label, where the second segment starts, length with special tokens.
HEADER = 3


def build(documents: list[list[Ids]], length: int, config: ExamplesConfig, rng: random.Random) -> Iterator[Example]:
    """The examples of `documents` (each a list of its sentences' ids, none empty) for a sequence length."""
    if config.format == "sentence_pairs":
        for index in range(len(documents)):
            yield from _sentence_pairs(documents, index, length - 3, config.short_sequence_probability, rng)
        return
    texts = [text for document in documents for text in _full_sentences(document, length - 2)]
    rows = _packed(texts, length, rng) if config.format == "packed" else ([text] for text in texts)
    for row in rows:
        yield 0, [(text,) for text in row]


def _full_sentences(document: list[Ids], most: int) -> Iterator[Ids]:
    """Texts of whole sentences, as many as fit in `most` tokens; a longer sentence is cut."""
    text: Ids = []
    for sentence in document:
        if text and len(text) + len(sentence) > most:
            yield text
            text = []
        text = text + sentence
        while len(text) > most:
            yield text[:most]
            text = text[most:]
    if text:
        yield text


def _packed(texts: list[Ids], length: int, rng: random.Random) -> list[list[Ids]]:
    """Rows of texts by best fit, longest first: each text goes into the fullest row that has room for it."""
    rows: list[list[Ids]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, number of the row), ascending.
    for text in sorted(texts, key=len, reverse=True):
        size = len(text) + 2  # With [CLS] and [SEP].
        at = bisect.bisect_left(rooms, (size, 0))
        if at == len(rooms):
            rows.append([])
            room, number = length, len(rows) - 1
        else:
            room, number = rooms.pop(at)
        rows[number].append(text)
        bisect.insort(rooms, (room - size, number))
    rng.shuffle(rows)  # So that an evaluation which stops early sees a sample of all rows.
    return rows


def _sentence_pairs(documents, index: int, most: int, short_probability: float, rng) -> Iterator[Example]:
    """The original's algorithm: collect sentences up to the length, split them between two sentences at random, and
    replace half of the second segments by sentences from elsewhere."""
    document = documents[index]
    target = rng.randint(2, most) if rng.random() < short_probability else most
    chunk: list[Ids] = []
    size = i = 0
    while i < len(document):
        chunk.append(document[i])
        size += len(document[i])
        i += 1
        if i < len(document) and size < target:
            continue
        a_end = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
        a = [token for sentence in chunk[:a_end] for token in sentence]
        is_random = len(chunk) == 1 or rng.random() < 0.5
        if is_random:
            b = _random_segment(documents, index, target - len(a), rng)
            i -= len(chunk) - a_end  # The unused sentences are put back.
        else:
            b = [token for sentence in chunk[a_end:] for token in sentence]
        yield int(is_random), [_truncate(a, b, most, rng)]
        chunk, size = [], 0


def _random_segment(documents, index: int, target: int, rng) -> Ids:
    """Sentences from a random position in another document, until they have `target` tokens."""
    other = index
    for _ in range(10):  # As in the original: if there is one document only, it is taken itself.
        other = rng.randrange(len(documents))
        if other != index:
            break
    document = documents[other]
    segment: Ids = []
    for sentence in document[rng.randrange(len(document)) :]:
        segment += sentence
        if len(segment) >= target:
            break
    return segment


def _truncate(a: Ids, b: Ids, most: int, rng) -> tuple[Ids, Ids]:
    """Cuts the longer segment, token by token, at the front or the back with equal chance, until both fit in `most`."""
    excess = len(a) + len(b) - most
    if excess <= 0:
        return a, b
    # First the longer one is cut to the other's length; then both are cut in turn, b first.
    keep_a, keep_b = len(a), len(b)
    cut = min(excess, abs(keep_a - keep_b))
    keep_a, keep_b = (keep_a - cut, keep_b) if keep_a > keep_b else (keep_a, keep_b - cut)
    keep_a, keep_b = keep_a - (excess - cut) // 2, keep_b - (excess - cut + 1) // 2
    return _cut(a, keep_a, rng), _cut(b, keep_b, rng)


def _cut(segment: Ids, keep: int, rng) -> Ids:
    excess = len(segment) - keep
    # A fair coin for each token to cut: heads cuts one at the front, tails one at the back.
    front = rng.getrandbits(excess).bit_count() if excess else 0
    return segment[front : front + keep]


def tokens_used(example: Example) -> int:
    """Number of tokens in the row, special ones included."""
    return sum(1 + sum(len(segment) + 1 for segment in segments) for segments in example[1])


def record_type(vocab_size: int, words: bool = False) -> str:
    """The NumPy type of a record: two bytes where the vocabulary fits, with one more bit if it marks `words`."""
    return "uint16" if vocab_size <= 1 << (15 if words else 16) else "int32"


def continues_bit(dtype: str) -> int:
    """The bit that is set in an id that continues a word, in records with a segmenter's words."""
    return 1 << (15 if dtype == "uint16" else 30)


def to_record(example: Example, length: int, special_ids: dict[str, int], dtype: str) -> bytes:
    """`HEADER` fields and `length` ids: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], for each text; then padding."""
    label, texts = example
    ids: Ids = []
    for segments in texts:
        ids.append(special_ids[CLS])
        for segment in segments:
            ids += [*segment, special_ids[SEP]]
    used = len(ids)
    second = len(texts[0][0]) + 2 if len(texts[0]) == 2 else used
    padding = [special_ids[PAD]] * (length - used)
    return np.array([label, second, used, *ids, *padding], dtype).tobytes()
