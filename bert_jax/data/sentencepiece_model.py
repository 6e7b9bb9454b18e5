"""Reads and changes what SentencePiece's Python package doesn't give access to in a model's file.

The file is a protocol buffer (sentencepiece_model.proto). The package's own module for it needs a newer protobuf than
TensorFlow allows, so the few fields are read here from the wire format.
"""

import contextlib
import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

from bert_jax.config import InputError

PIECES, TRAINER, NORMALIZER = 1, 2, 3  # Fields of the model.
PIECE, SCORE, TYPE = 1, 2, 3  # Fields of a piece.
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # Types of a piece.
# Sums of multiples of this are exact in single precision up to 2**16, which is thousands of pieces.
SCORE_STEP = 1 / 256


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model was trained, and how it normalises text."""

    kind: str
    """unigram, bpe, word or char."""
    charsmap: bytes
    """The normalisation rules, which `tokenizers` calls a precompiled charsmap."""
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    whitespace_as_suffix: bool


def settings(model: bytes) -> Settings:
    """The model's settings. Raises `InputError`, as `pieces` does, for damage that SentencePiece itself overlooks."""
    with _damage_as_input_error():
        return _settings(model)


def _settings(model: bytes) -> Settings:
    trainer, normalizer = (_values(model, number) for number in (TRAINER, NORMALIZER))
    return Settings(
        kind={1: "unigram", 2: "bpe", 3: "word", 4: "char"}[trainer.get(3, 1)],
        charsmap=bytes(memoryview(normalizer.get(2, b""))),
        add_dummy_prefix=bool(normalizer.get(3, True)),
        remove_extra_whitespaces=bool(normalizer.get(4, True)),
        whitespace_as_suffix=bool(trainer.get(24, False)),
    )


def pieces(model: bytes) -> list[tuple[str, float, int]]:
    """(piece, score, type) in the order of the ids."""
    with _damage_as_input_error():
        parts = (part for number, part, _ in _fields(model) if number == PIECES)
        messages = ({field: value for field, value, _ in _fields(part)} for part in parts)
        return [(m[PIECE].decode(), float(m.get(SCORE, 0)), int(m.get(TYPE, NORMAL))) for m in messages]


def without_dummy_prefix(model: bytes) -> bytes:
    """The same model, but without the ▁ that it puts before a text."""
    # A repeated message is merged with the earlier one: normalizer_spec { add_dummy_prefix: false }.
    return model + bytes([NORMALIZER << 3 | 2, 2, 3 << 3, 0])


def with_rounded_scores(model: bytes) -> bytes:
    """The same model with scores rounded to multiples of `SCORE_STEP`.

    SentencePiece sums scores over a whole text in single precision, so the text before a word can decide between
    segmentations with nearly equal scores. With exact sums, a word is segmented the same everywhere, by every library.
    """
    rounded = bytearray(model)
    for number, value, start in _fields(model):
        if number == PIECES:
            for inner, score, at in _fields(value):
                if inner == SCORE:
                    struct.pack_into("<f", rounded, start + at, round(score / SCORE_STEP) * SCORE_STEP)
    return bytes(rounded)


@contextlib.contextmanager
def _damage_as_input_error() -> Iterator[None]:
    try:
        yield
    # A field is missing, has another type, or ends after the file's end.
    except (KeyError, AttributeError, TypeError, IndexError, ValueError, struct.error):
        raise InputError("this SentencePiece model is damaged") from None


def _values(message: bytes, number: int) -> dict[int, Any]:
    """The fields of the message in field `number`, each as an int, a float or bytes; of repeated ones the last."""
    return {inner: value for outer, part, _ in _fields(message) if outer == number for inner, value, _ in _fields(part)}


def _fields(message: bytes) -> Iterator[tuple[int, Any, int]]:
    """Yields (field number, value, offset of the value) for each field of a message."""
    at = 0
    value: Any
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, end = _varint(message, at)
            case 1:
                (value,), end = struct.unpack_from("<d", message, at), at + 8
            case 5:
                (value,), end = struct.unpack_from("<f", message, at), at + 4
            case _:
                size, at = _varint(message, at)
                value, end = message[at : at + size], at + size
        yield key >> 3, value, at
        at = end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 64 bits")
