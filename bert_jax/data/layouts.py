"""How one or two texts become an input of the model: special tokens, token types, and where long texts are cut."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

from bert_jax.config import InputError, first_line

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Ids = list[int]


class SpecialIds(dict[str, int]):
    """The ids of [PAD], [UNK], [CLS], [SEP], [MASK], in this order; one that is missing raises `InputError`."""

    def __missing__(self, piece: str) -> int:
        role = f"{piece[1:-1].lower()}_token"
        raise InputError(f"the tokenizer has no {piece}; name its token for that as {role} in tokenizer_config.json")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of an input: `first` A `last` for one text, `first` A `between` B `last` for two."""

    first: int
    """The id of the token that serves as [CLS]."""
    last: int
    """The id of the token that serves as [SEP]."""
    between: tuple[int, ...]
    types: tuple[int, ...]
    """Token types of a pair: for `first`, all of A, each of `between`, all of B, and `last`. A single text has type
    0."""
    cut: Literal["left", "right"] = "right"
    """The side on which a text that is too long is cut."""
    no_pairs: str = ""
    """The reason why two texts can't be put together; empty where they can."""

    @classmethod
    def bert(cls, special_ids: dict[str, int]) -> "Layout":
        """BERT's layout: [CLS] A [SEP], or [CLS] A [SEP] B [SEP], where B and the [SEP] after it have type 1."""
        return cls(special_ids[CLS], special_ids[SEP], (special_ids[SEP],), (0, 0, 0, 1, 1))

    def check_bert_pairs(self) -> None:
        """Raises `InputError` where a pair isn't [CLS] A [SEP] B [SEP], which pretraining on sentence pairs needs."""
        if self.no_pairs or (self.between, self.types) != ((self.last,), (0, 0, 0, 1, 1)):
            remedy = "choose --examples.format full_sentences or packed"
            raise InputError(f"the tokenizer's pairs aren't BERT's, [CLS] A [SEP] B [SEP] with token types; {remedy}")

    def special_tokens(self, texts: int) -> int:
        """Number of special tokens in an input of one or two texts."""
        if texts == 1:
            return 2
        if self.no_pairs:
            raise InputError(self.no_pairs)
        return 2 + len(self.between)

    def joined(self, texts: Sequence[Ids]) -> tuple[Ids, Ids]:
        """The ids and token types of an input of one or two texts."""
        self.special_tokens(len(texts))
        if len(texts) == 1:
            ids = [self.first, *texts[0], self.last]
            return ids, [0] * len(ids)
        a, b = texts
        first_type, a_type, *between_types, b_type, last_type = self.types
        ids = [self.first, *a, *self.between, *b, self.last]
        return ids, [first_type, *[a_type] * len(a), *between_types, *[b_type] * len(b), last_type]

    def shortened(self, text: Ids, most: int) -> Ids:
        """A text's ids, cut to at most `most`."""
        return text[max(len(text) - most, 0) :] if self.cut == "left" else text[:most]


def from_post_processor(
    post_processor, token_types: bool | None = True, cut: Literal["left", "right"] = "right"
) -> Layout:
    """The layout that a post-processor of the `tokenizers` library makes.

    `token_types` says whether the model is given token types; False: they are all 0; None: not known. Raises
    `InputError` where a single text isn't put between two tokens, all of type 0.
    """
    ids, types, sides = _processed(post_processor, pair=False)
    if sides != [None, 0, None] or set(types) != {0}:
        shape = " ".join("A" if side == 0 else "special" for side in sides)
        raise InputError(
            f"its post_processor makes '{shape}' of a text, with token types {types}; what is read has one special "
            "token before it and one after it, all of type 0: give it such a TemplateProcessing"
        )
    first, _, last = ids
    ids, types, sides = _processed(post_processor, pair=True)
    size = len(ids) - 4
    types = types if token_types is not False else [0] * len(types)
    layout = Layout(first, last, tuple(ids[2:-2]), tuple(types), cut)
    no_pairs = ""
    if size < 1 or sides != [None, 0, *[None] * size, 1, None] or (ids[0], ids[-1]) != (first, last):
        no_pairs = "the tokenizer's post_processor doesn't put two texts together as one, with special tokens between"
        no_pairs += "; give its TemplateProcessing a pair"
    elif token_types is None and any(types):
        no_pairs = "tokenizer_config.json has no model_input_names, without which transformers 4 gives the second text "
        no_pairs += 'token types and 5 doesn\'t; add it: ["input_ids", "token_type_ids", "attention_mask"] or without'
    return dataclasses.replace(layout, no_pairs=no_pairs)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns errors of the `tokenizers` library on inconsistent files into `InputError`: it raises plain `Exception` or,
    where Rust panics, a `BaseException`."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"the tokenizers library can't read it ({first_line(error)}); copy it again") from None


def _processed(post_processor, pair: bool) -> tuple[Ids, Ids, Sequence[int | None]]:
    """Ids, token types, and the number of their text (None: special tokens), for texts of one token each."""
    from tokenizers import Tokenizer, models

    text = Tokenizer(models.WordLevel({"text": 0}, unk_token="text")).encode("text")
    if post_processor is None:
        return [0] * (1 + pair), [0] * (1 + pair), [0, 1][: 1 + pair]
    with refusals():
        encoded = post_processor.process(text, text) if pair else post_processor.process(text)
    return encoded.ids, encoded.type_ids, encoded.sequence_ids
