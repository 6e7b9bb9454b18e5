"""A tokenizer.json of any kind, used unchanged through the `tokenizers` library."""

import functools
import json
from typing import Literal

import numpy as np

from bert_jax.config import InputError
from bert_jax.data import layouts
from bert_jax.data.layouts import CLS, MASK, PAD, SEP, UNK, SpecialIds
from bert_jax.files import contents

# Put before a piece that must not be found in a text: a character that Unicode reserves for such internal use.
HIDDEN = "\ufdd0"
# A vocabulary of n pieces with ids beyond n times the first number plus the second has lost pieces.
GAPS = 16, 1 << 16


def loaded(content: str):
    """The library's tokenizer for the content. Raises `InputError` for what it can't read."""
    from tokenizers import Tokenizer as Backend

    with layouts.refusals():
        backend = Backend.from_str(content)
    check_ids(backend)
    return backend


def check_ids(backend) -> None:
    """Raises `InputError` where most ids up to the last have no piece: the library, and our list of pieces, take time
    and memory for every id."""
    ids = backend.get_vocab()
    size = 1 + max(ids.values(), default=-1)
    if size > GAPS[0] * len(ids) + GAPS[1]:
        raise InputError(f"its vocabulary has {len(ids)} pieces, but ids up to {size - 1}; copy it again")


class TokenizerJson:
    """A `Tokenizer` from the content of a tokenizer.json.

    `names` are its special tokens by their roles in tokenizer_config.json: {"cls_token": "<s>", ...}. `token_types`
    says whether the model is given token types; None where its folder doesn't say.
    """

    kind = "tokenizers"

    def __init__(
        self,
        content: str,
        names: dict[str, str],
        token_types: bool | None = True,
        truncation_side: Literal["left", "right"] = "right",
    ):
        self.content, self.names = content, names
        self.token_types, self.truncation_side = token_types, truncation_side
        self.whole = loaded(content)
        self.ids: dict[str, int] = self.whole.get_vocab()
        if not self.ids:
            raise InputError("its vocabulary is empty; copy it again")
        size = 1 + max(self.ids.values())
        self._pieces = [""] * size
        for piece, i in self.ids.items():
            self._pieces[i] = piece
        self.vocab_size = len(self._pieces)
        whole = contents.json_value(self.whole.to_str())  # As the library writes it, with every field.
        self._model, self._splitter = whole["model"], whole["pre_tokenizer"]
        self._check_unknown()
        self.layout = layouts.from_post_processor(self.whole.post_processor, token_types, truncation_side)
        if (largest := max(self.layout.first, self.layout.last, *self.layout.between)) >= size:
            raise InputError(f"its post_processor puts in the id {largest}, but the vocabulary ends at {size - 1}")
        special = {CLS: self.layout.first, SEP: self.layout.last}
        special |= {piece: self.ids[name] for piece in (PAD, UNK, MASK) if (name := self._name(piece)) in self.ids}
        known = {piece: special[piece] for piece in layouts.SPECIAL if piece in special}
        self.special_ids: dict[str, int] = SpecialIds(known)

    def _check_unknown(self) -> None:
        """Checks that any text has ids."""
        from tokenizers.pre_tokenizers import ByteLevel

        kind, unknown = self._model["type"], self._model.get("unk_token")
        # BPE leaves out what has no piece, unless it names a token for that; a piece for every byte leaves nothing.
        complete = kind == "BPE" and (unknown is None or self.ids.keys() >= set(ByteLevel.alphabet()))
        if kind != "Unigram" and not complete and unknown not in self.ids:
            raise InputError(f"its model.unk_token {unknown} isn't in its vocabulary; name one that is")
        if kind == "Unigram" and self._model["unk_id"] is None and not self._model["byte_fallback"]:
            raise InputError("its model.unk_id is null; give it the id of the unknown token")

    def _name(self, piece: str) -> str:
        """The tokenizer's name for [PAD], [UNK] or [MASK]; BERT's where the folder doesn't give one."""
        return self.names.get(f"{piece[1:-1].lower()}_token", piece)

    @functools.cached_property
    def backend(self):
        return self._with_special_as_text({self._pieces[i] for i in self.special_ids.values()})

    @functools.cached_property
    def _masking(self):
        mask = self.special_ids[MASK]
        return self._with_special_as_text({self._pieces[i] for i in self.special_ids.values() if i != mask})

    def _with_special_as_text(self, names: set[str]):
        """The same tokenizer, but these tokens, spelled out in a text, are split like any other word."""
        whole = contents.json_value(self.whole.to_str())
        for token in whole["added_tokens"]:
            token["special"] = token["content"] in names
        if whole["model"]["type"] == "Unigram":  # It finds every piece of its vocabulary in a text, these included.
            vocab = whole["model"]["vocab"]
            inside = {piece for piece, _ in vocab} & names
            whole["model"]["vocab"] = [(HIDDEN + p if p in inside else p, score) for p, score in vocab]
            whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] not in inside]
        backend = loaded(json.dumps(whole))
        backend.encode_special_tokens = True
        return backend

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        return [(ids, [start for start, _ in spans]) for ids, spans in self.encode_with_spans(texts)]

    def encode_with_spans(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        return [(e.ids, e.offsets) for e in self.backend.encode_batch(texts, add_special_tokens=False)]

    def encode_masked(self, text: str) -> list[int]:
        text = text.replace(MASK, self._pieces[self.special_ids[MASK]])
        return self._masking.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self.whole.decode(ids, skip_special_tokens=False)

    def pieces(self) -> list[str]:
        return self._pieces

    def continues_word(self) -> np.ndarray:
        if prefix := self._model.get("continuing_subword_prefix"):
            return np.array([piece.startswith(prefix) for piece in self._pieces])
        if self._model["type"] == "WordLevel":
            return np.zeros(self.vocab_size, bool)
        mark = "Ġ" if "ByteLevel" in json.dumps(self._splitter) else "▁"
        begins = np.array([piece.startswith(mark) for piece in self._pieces])
        if not begins.any():
            raise InputError("which pieces begin a word can't be seen in the tokenizer's vocabulary; take another one")
        return ~begins

    def to_dict(self) -> dict:
        settings = {"token_types": self.token_types, "truncation_side": self.truncation_side}
        return {"kind": self.kind, "names": self.names, **settings, "content": self.content}
