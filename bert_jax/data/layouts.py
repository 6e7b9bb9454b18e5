"""How one or two texts become an input of the model: the special tokens around them, their token types, the cut."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

from bert_jax.config import InputError, first_line

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Ids = list[int]


class SpecialIds(dict[str, int]):
    """The ids of [PAD], [UNK], [CLS], [SEP], [MASK], in this order; asking for what the tokenizer lacks is an error."""

    def __missing__(self, piece: str) -> int:
        role = f"{piece[1:-1].lower()}_token"
        raise InputError(f"the tokenizer has no {piece}; name its token for that as {role} in tokenizer_config.json")


@dataclasses.dataclass(frozen=True)
class Layout:
    """`first` A `last`, or `first` A `between` B `last`."""

    first: int
    """The id that stands for [CLS]."""
    last: int
    """The id that stands for [SEP]."""
    between: tuple[int, ...]
    types: tuple[int, ...]
    """Token types of a pair: of `first`, of all of A, of each of `between`, of all of B, and of `last`. Those of one
    text are 0."""
    cut: Literal["left", "right"] = "right"
    """The side of a text that is cut off where it is too long."""
    no_pairs: str = ""
    """Why two texts can't be put together; empty where they can."""

    @classmethod
    def of_bert(cls, special_ids: dict[str, int]) -> "Layout":
        """[CLS] A [SEP], or [CLS] A [SEP] B [SEP], where B and the [SEP] behind it have type 1."""
        return cls(special_ids[CLS], special_ids[SEP], (special_ids[SEP],), (0, 0, 0, 1, 1))

    def must_be_berts(self) -> None:
        """Raises `InputError` where a pair isn't [CLS] A [SEP] B [SEP], as sentence pairs to pretrain on are."""
        if self.no_pairs or (self.between, self.types) != ((self.last,), (0, 0, 0, 1, 1)):
            remedy = "choose --examples.format full_sentences or packed"
            raise InputError(f"the tokenizer's pairs aren't BERT's, [CLS] A [SEP] B [SEP] with token types; {remedy}")

    def special_tokens(self, texts: int) -> int:
        """How many special tokens an input of one or two texts has."""
        if texts == 1:
            return 2
        if self.no_pairs:
            raise InputError(self.no_pairs)
        return 2 + len(self.between)

    def joined(self, texts: Sequence[Ids]) -> tuple[Ids, Ids]:
        """Ids and token types of an input of one or two texts."""
        self.special_tokens(len(texts))
        if len(texts) == 1:
            ids = [self.first, *texts[0], self.last]
            return ids, [0] * len(ids)
        a, b = texts
        first, of_a, *of_between, of_b, last = self.types
        ids = [self.first, *a, *self.between, *b, self.last]
        return ids, [first, *[of_a] * len(a), *of_between, *[of_b] * len(b), last]

    def shortened(self, text: Ids, most: int) -> Ids:
        """At most `most` of a text's ids."""
        return text[max(len(text) - most, 0) :] if self.cut == "left" else text[:most]


def of_post_processor(
    post_processor, token_types: bool | None = True, cut: Literal["left", "right"] = "right"
) -> Layout:
    """The layout that a post-processor of the `tokenizers` library makes.

    `token_types` False: the model isn't given any, so that all are 0; None: it isn't known whether it is. Raises
    `InputError` where one text isn't a token, the text, and a token, of type 0.
    """
    ids, types, sides = _processed(post_processor, pair=False)
    if sides != [None, 0, None] or set(types) != {0}:
        shape = " ".join("A" if side == 0 else "special" for side in sides)
        raise InputError(
            f"its post_processor makes '{shape}' of a text, with token types {types}; what is read has one special "
            "token before it and one behind, all of type 0: give it such a TemplateProcessing"
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
    """Raises `InputError` for whatever the `tokenizers` library raises on a file that contradicts itself: nothing more
    special than `Exception` or, where Rust panics, not even that."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"the tokenizers library can't read it ({first_line(error)}); copy it again") from None


def _processed(post_processor, pair: bool) -> tuple[Ids, Ids, Sequence[int | None]]:
    """Ids, token types, and which text they are of (None: special tokens), for texts of one token each."""
    from tokenizers import Tokenizer, models

    text = Tokenizer(models.WordLevel({"text": 0}, unk_token="text")).encode("text")
    if post_processor is None:
        return [0] * (1 + pair), [0] * (1 + pair), [0, 1][: 1 + pair]
    with refusals():
        encoded = post_processor.process(text, text) if pair else post_processor.process(text)
    return encoded.ids, encoded.type_ids, encoded.sequence_ids
