"""The words of a text without spaces between words, for whole-word masking (Chinese: arXiv 1906.08101).

By default each Chinese character is a word. With a segmenter, a token begins a word where it isn't in the same word of
the segmenter as the token before it. Examples store that in the ids: the top bit of an id says that the token continues
a word.
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
    """[vocab_size] bool: whether a piece continues a word; one that begins with an ideograph never does."""
    begins = [_is_ideograph(piece.removeprefix("##")[:1]) for piece in tokenizer.pieces()]
    return tokenizer.continues_word() & ~np.array(begins)


def _is_ideograph(character: str) -> bool:
    return bool(character) and any(first <= ord(character) <= last for first, last in IDEOGRAPHS)


def load(name: str) -> Segmenter:
    """The function that "module:function" names. Raises `InputError` where it can't be imported."""
    module, _, function = name.partition(":")
    try:
        segmenter = getattr(importlib.import_module(module), function)
    except Exception as error:  # A person's module can raise anything.
        remedy = "pip install it, or set PYTHONPATH"
        raise InputError(f"{SETTING}: {name!r} can't be imported ({_first_line(error)}); {remedy}") from error
    if not callable(segmenter):
        raise InputError(f"{SETTING}: {name!r} isn't a function; name one that takes a text and returns its words")
    return segmenter


def encoder(tokenizer: Tokenizer, name: str, bit: int) -> Callable[[list[str]], list[Ids]]:
    """`tokenizer.encode` with `bit` set in each id that continues a word of the segmenter `name`."""
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
    except Exception as error:  # The segmenter's error, or ours if it doesn't return words.
        raise InputError(f"{SETTING}: failed with {_first_line(error)} on {text[:40]!r}; correct it") from error
    if "".join(words) != _without_spaces(text):
        remedy = "its words, put together, must be the text; choose another function"
        raise InputError(f"{SETTING}: changes the text {text[:40]!r}; {remedy}")
    return words


def _continues(text: str, starts: list[int], words: list[str]) -> list[bool]:
    """For tokens that begin at `starts`: whether each is in the same word as the one before it."""
    # Segmenters treat spaces in different ways, so positions are counted without them.
    position = list(itertools.accumulate((not c.isspace() for c in text), initial=0))
    word_at = [number for number, word in enumerate(words) for _ in word] + [len(words)]
    numbers = [word_at[position[start]] for start in starts]
    return [False, *(a == b for a, b in itertools.pairwise(numbers))][: len(starts)]


def _without_spaces(text: str) -> str:
    return "".join(text.split())
