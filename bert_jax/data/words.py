"""The words of a text where spaces don't part them, for masking whole words (Chinese: arXiv 1906.08101).

Without more, a Chinese character begins a word of its own. With a segmenter, a token begins a word where it begins in
another of the segmenter's words than the token before it. Examples keep that with the ids: the top bit of an id says
that the token continues a word.
"""

import functools
import importlib
import itertools
from collections.abc import Callable

import numpy as np

from bert_jax.config import InputError
from bert_jax.data.examples import Ids
from bert_jax.data.tokenizers import Tokenizer

Segmenter = Callable[[str], list[str]]

SETTING = "examples.word_segmenter"
# The blocks that BERT's tokenizer splits into single characters: CJK unified and compatibility ideographs.
IDEOGRAPHS = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))


@functools.lru_cache(1)
def continues_word(tokenizer: Tokenizer) -> np.ndarray:
    """[vocab_size] bool: what the tokenizer says goes on with a word, but for what begins with an ideograph."""
    begins = [_is_ideograph(piece.removeprefix("##")[:1]) for piece in tokenizer.pieces()]
    return tokenizer.continues_word() & ~np.array(begins)


def _is_ideograph(character: str) -> bool:
    return bool(character) and any(first <= ord(character) <= last for first, last in IDEOGRAPHS)


def load(name: str) -> Segmenter:
    """The function that "module:function" names. Raises `InputError` where it can't be imported."""
    module, _, function = name.partition(":")
    try:
        segmenter = getattr(importlib.import_module(module), function)
    except Exception as error:  # Whatever goes wrong in a module of the person's.
        remedy = "pip install it, or set PYTHONPATH"
        raise InputError(f"{SETTING}: {name!r} can't be imported ({_first_line(error)}); {remedy}") from error
    if not callable(segmenter):
        raise InputError(f"{SETTING}: {name!r} isn't a function; name one that takes a text and returns its words")
    return segmenter


def encoder(tokenizer: Tokenizer, name: str, bit: int) -> Callable[[list[str]], list[Ids]]:
    """`tokenizer.encode`, but that `bit` is set in each id that continues a word of the segmenter `name`."""
    segmenter = load(name)

    def encode(texts: list[str]) -> list[Ids]:
        marked = []
        for text, (ids, starts) in zip(texts, tokenizer.encode_with_starts(texts), strict=True):
            continues = _continues(text, starts, _segmented(text, segmenter))
            marked.append([i | bit if c else i for i, c in zip(ids, continues, strict=True)])
        return marked

    return encode


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _segmented(text: str, segmenter: Segmenter) -> list[str]:
    try:
        words = [_without_spaces(word) for word in segmenter(text)]
    except Exception as error:  # Its own, or ours where it returns something else.
        raise InputError(f"{SETTING}: failed with {_first_line(error)} on {text[:40]!r}; mend it") from error
    if "".join(words) != _without_spaces(text):
        remedy = "its words, put together, must be the text; choose another function"
        raise InputError(f"{SETTING}: changes the text {text[:40]!r}; {remedy}")
    return words


def _continues(text: str, starts: list[int], words: list[str]) -> list[bool]:
    """For tokens that begin at `starts`: whether each is in the same word as the one before it."""
    # Segmenters treat spaces as they like, so places are counted without them.
    place = list(itertools.accumulate((not c.isspace() for c in text), initial=0))
    word_at = [number for number, word in enumerate(words) for _ in word] + [len(words)]
    numbers = [word_at[place[start]] for start in starts]
    return [False, *(a == b for a, b in itertools.pairwise(numbers))][: len(starts)]


def _without_spaces(text: str) -> str:
    return "".join(text.split())
