"""Turns texts as strings into what a model reads."""

import warnings
from collections.abc import Sequence

from bert_jax.config import InputError
from bert_jax.data.tokenizers import MASK, Tokenizer
from bert_jax.tasks.base import Feature
from bert_jax.tasks.classification import model_input

Texts = str | Sequence[str]


def listed(texts: Texts) -> list[str]:
    """The texts as a list, a single string as a list of one. Raises `InputError` for what isn't text."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {number}: is of type {type(text).__name__}, must be a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = f"has half a character (surrogate) at {error.start}"
            raise InputError(f"text {number}: {what}; replace it, or read the text as it was written") from None
    return texts


def columns(texts: Texts, seconds: Texts | None) -> list[list[str]]:
    """A list of the texts and, where there are second texts, a list of these."""
    lists = [listed(column) for column in (texts, seconds) if column is not None]
    if len({len(column) for column in lists}) > 1:
        raise InputError(f"{len(lists[0])} texts but {len(lists[1])} to go with them; give each text one")
    return lists


def features(
    tokenizer: Tokenizer, longest: int, texts: Texts, pairs: Texts | None = None, length: int | None = None
) -> list[Feature]:
    """Ids and token types of texts, or pairs of texts, with [CLS] and [SEP].

    Cut to `length`; without one, what is longer than the `longest` that the model reads is cut with a warning.
    """
    least = tokenizer.layout.special_tokens(1 if pairs is None else 2)
    if length is not None and not least <= length <= longest:
        raise InputError(f"length: is {length}, must be from {least} to the {longest} that the model reads")
    parts = list(zip(*(bare_ids(tokenizer, column) for column in columns(texts, pairs)), strict=True))
    if length is None and any(sum(map(len, part)) + least > longest for part in parts):
        warnings.warn(f"texts of more than {longest} tokens are cut: the model reads no more", stacklevel=3)
    inputs = (model_input(tokenizer, part, length or longest) for part in parts)
    return [Feature(ids, types, None, number) for number, (ids, types) in enumerate(inputs)]


def bare_ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Ids of texts without [CLS] and [SEP]; [MASK] in a text is the mask token."""
    ids = tokenizer.encode([text if MASK not in text else "" for text in texts])
    return [tokenizer.encode_masked(t) if MASK in t else i for t, i in zip(texts, ids, strict=True)]


def masked_feature(tokenizer: Tokenizer, longest: int, text: str) -> Feature:
    """The ids and token types of a text with masks to fill. Raises `InputError` where it has none, or is too long."""
    if MASK not in text:
        raise InputError(f"{text!r}: holds no {MASK}")
    ids, types = model_input(tokenizer, (tokenizer.encode_masked(text),), 1 << 30)
    if len(ids) > longest:
        raise InputError(f"{text[:40]!r}...: {len(ids)} tokens, the model reads {longest}")
    return Feature(ids, types, None, 0)
