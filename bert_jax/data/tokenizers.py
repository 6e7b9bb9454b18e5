"""The protocol of tokenizers; WordPiece (through the `tokenizers` library) and SentencePiece."""

import base64
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any, Protocol

import numpy as np

from bert_jax.config import InputError, TokenizerConfig
from bert_jax.data.layouts import CLS, MASK, PAD, SEP, SPECIAL, UNK, Layout
from bert_jax.data.no_tokenizer import NoTokenizer
from bert_jax.data.sentencepiece_model import with_rounded_scores, without_dummy_prefix
from bert_jax.data.tokenizer_json import TokenizerJson
from bert_jax.files import contents

# Number of words whose ids a WordPiece tokenizer caches, and the length of the longest.
CACHED_WORDS = 1 << 16
CACHED_LENGTH = 40
# Words of more characters become [UNK].
LONGEST_WORD = 100
# Number of characters in a trained WordPiece vocabulary; rarer ones become [UNK].
ALPHABET = 1000


class Tokenizer(Protocol):
    """Text to ids and back. `special_ids` are [PAD], [UNK], [CLS], [SEP], [MASK] in this order, by `SPECIAL`."""

    def __hash__(self) -> int: ...

    kind: str
    vocab_size: int
    special_ids: dict[str, int]
    layout: Layout
    """How one or two texts become an input."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, without [CLS] and [SEP]. A literal "[MASK]" in a text is split like any other word."""

    def encode_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        """The ids of each text, and the character at which each token begins."""

    def encode_with_spans(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """The ids of each text, and each token's span of characters (start, end). Spans ascend; text that the tokenizer
        drops is in no span, and SentencePiece's spans include the space before a word."""

    def encode_masked(self, text: str) -> list[int]:
        """The ids of one text, in which each literal [MASK] is the mask token."""

    def decode(self, ids: list[int]) -> str: ...

    def pieces(self) -> list[str]:
        """The vocabulary in the order of its ids."""

    def continues_word(self) -> np.ndarray:
        """[vocab_size] bool: whether the piece continues the word of the piece before it."""

    def to_dict(self) -> dict:
        """All that `from_dict` needs to build the tokenizer again, as JSON values."""


class WordPiece:
    """BERT's tokenizer: the ids come from the `tokenizers` library, cached for each word.

    The id of a piece is its index in `vocab`, the last one if it occurs twice. `strip_accents` None means the value of
    `lowercase`. `added` are tokens that are found in the text before it is split, with the fields of
    `tokenizers.AddedToken`; those that aren't in the vocabulary have the ids after it.
    """

    kind = "wordpiece"

    def __init__(
        self,
        vocab: list[str],
        lowercase: bool,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
        added: Sequence[dict] = (),
    ):
        from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
        from tokenizers import Tokenizer as Backend

        self.vocab = vocab
        self.options = {"lowercase": lowercase, "strip_accents": strip_accents, "split_chinese": split_chinese}
        ids = {piece: i for i, piece in enumerate(vocab)}
        missing = [piece for piece in SPECIAL if piece not in ids]
        if missing:
            raise InputError(f"the vocabulary lacks {', '.join(missing)}; a WordPiece vocab.txt has one piece a line")
        self.added = sorted(added, key=lambda token: ids.get(token["content"], len(vocab)))
        self._pieces = [*vocab, *(token["content"] for token in self.added if token["content"] not in ids)]
        self.vocab_size = len(self._pieces)
        self.special_ids = {piece: ids[piece] for piece in SPECIAL}
        self.layout = Layout.bert(self.special_ids)
        self.backend = Backend(models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD))
        self.backend.normalizer = normalizers.BertNormalizer(
            lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=split_chinese
        )
        self.backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.backend.decoder = decoders.WordPiece()
        self.backend.add_tokens([AddedToken(**token) for token in self.added])
        self._cache: dict[str, list[int]] = {}

    def encode(self, texts: list[str]) -> list[list[int]]:
        if self.added:  # Added tokens may contain spaces.
            return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
        # Words between spaces are normalised and split independently, so each is encoded once. (Not str.split(): BERT
        # drops some characters that are white space for Python, and so joins the words around them.)
        words = [text.split(" ") for text in texts]
        cache = self._cache
        if len(cache) > CACHED_WORDS:
            cache.clear()
        new = list({word for word in chain.from_iterable(words) if word not in cache})
        encoded = self.backend.encode_batch_fast(new, add_special_tokens=False)
        fresh = {word: encoding.ids for word, encoding in zip(new, encoded, strict=True)}
        cache.update(fresh)
        ids = [list(chain.from_iterable(map(cache.__getitem__, line))) for line in words]
        for word in fresh:
            if len(word) > CACHED_LENGTH:
                del cache[word]
        return ids

    def encode_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        return [(ids, [start for start, _ in spans]) for ids, spans in self.encode_with_spans(texts)]

    def encode_with_spans(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        return [(e.ids, e.offsets) for e in self.backend.encode_batch(texts, add_special_tokens=False)]

    def encode_masked(self, text: str) -> list[int]:
        return _joined(self.encode(text.split(MASK)), self.special_ids[MASK])

    def decode(self, ids: list[int]) -> str:
        return self.backend.decode(ids)

    def pieces(self) -> list[str]:
        return self._pieces

    def continues_word(self) -> np.ndarray:
        return np.array([piece.startswith("##") for piece in self._pieces])

    def to_dict(self) -> dict:
        # The original's settings are left out: earlier versions didn't write them, and the fingerprint must not change.
        original = {"strip_accents": None, "split_chinese": True}
        options = {name: value for name, value in self.options.items() if original.get(name, ...) != value}
        added = {"added": self.added} if self.added else {}
        return {"kind": self.kind, **options, **added, "vocab": self.vocab}


class SentencePiece:
    """A SentencePiece model. Special pieces that it lacks ([PAD], [CLS], [SEP], [MASK]) have the ids after its own."""

    kind = "sentencepiece"
    # Names of the special pieces in models that bert_jax didn't train.
    ALIASES = {PAD: "<pad>", UNK: "<unk>", CLS: "<s>", SEP: "</s>", MASK: "<mask>"}

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        try:
            self._backend = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._pieces = [self._backend.id_to_piece(i) for i in range(self._backend.vocab_size())]
        except (RuntimeError, UnicodeDecodeError):
            raise InputError("this is not a SentencePiece model") from None
        self.special_ids = {UNK: self._backend.unk_id()}
        ids = {piece: i for i, piece in enumerate(self._pieces)}
        for piece in (PAD, CLS, SEP, MASK):
            special_id = ids.get(piece, ids.get(self.ALIASES[piece]))
            if special_id is None:
                special_id = len(self._pieces)
                self._pieces.append(piece)
            self.special_ids[piece] = special_id
        self.vocab_size = len(self._pieces)
        self.layout = Layout.bert(self.special_ids)

    def encode(self, texts: list[str]) -> list[list[int]]:
        return self._backend.encode(texts, num_threads=1)

    def encode_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        return [(ids, [start for start, _ in spans]) for ids, spans in self.encode_with_spans(texts)]

    def encode_with_spans(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        encoded = self._backend.encode(texts, return_type="offset_mapping", num_threads=1)
        return [(encoding["ids"], encoding["offsets"]) for encoding in encoded]

    @functools.cached_property
    def _bare(self):
        """The same model without the ▁ that it puts before a text."""
        return type(self._backend)(model_proto=without_dummy_prefix(self.model))

    def encode_masked(self, text: str) -> list[int]:
        first, *rest = text.split(MASK)
        parts = [self.encode([first])[0], *(self._continued(part) for part in rest)]
        return _joined(parts, self.special_ids[MASK])

    def _continued(self, part: str) -> list[int]:
        """The ids of the text after a mask: without the ▁ that SentencePiece puts before a text, unless it begins with
        a space."""
        begins_word = self._bare.normalize(f"_{part}").startswith("_▁")
        return (self._backend if begins_word else self._bare).encode(part)

    def decode(self, ids: list[int]) -> str:
        return self._backend.decode([i for i in ids if i < self._backend.vocab_size()])

    def pieces(self) -> list[str]:
        return self._pieces

    def continues_word(self) -> np.ndarray:
        return np.array([not piece.startswith("▁") for piece in self._pieces])

    def to_dict(self) -> dict:
        return {"kind": self.kind, "model": base64.b64encode(self.model).decode()}


def _joined(parts: list[list[int]], separator: int) -> list[int]:
    first, *rest = parts
    return first + [i for part in rest for i in (separator, *part)]


ADDED = {"content": str, **{f"{flag}?": bool for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}}
# The shape of what `to_dict` returns, for each kind.
FIELDS: dict[str, dict[str, Any]] = {
    WordPiece.kind: {
        "vocab": [str],
        "lowercase": bool,
        "strip_accents?": (bool, NoneType),
        "split_chinese?": bool,
        "added?": [ADDED],
    },
    SentencePiece.kind: {"model": str},
    NoTokenizer.kind: {"reason": str},
    TokenizerJson.kind: {
        "content": str,
        "names": {str: str},
        "token_types?": (bool, NoneType),
        "truncation_side?": str,
    },
}


def from_dict(values: dict, file: object = "the tokenizer", remedy: str = contents.AGAIN) -> Tokenizer:
    """The inverse of a tokenizer's `to_dict`. Raises `InputError` naming `file`, which holds the values, where they
    aren't a tokenizer's."""
    contents.check_values(values, {"kind": str}, file, remedy)
    kind, rest = values["kind"], {name: value for name, value in values.items() if name != "kind"}
    fields = FIELDS.get(kind)
    if fields is None or rest.keys() - {name.rstrip("?") for name in fields}:
        raise InputError(f"{file}: no tokenizer that this version reads (of kind {kind!r:.40}); {remedy}")
    contents.check_values(rest, fields, file, remedy)
    try:
        match kind:
            case WordPiece.kind:
                return WordPiece(**rest)
            case SentencePiece.kind:
                return SentencePiece(base64.b64decode(rest["model"], validate=True))
            case NoTokenizer.kind:
                return NoTokenizer(**rest)
            case _:
                return TokenizerJson(**rest)
    # ValueError: not base64, or half a surrogate pair; TypeError: unknown fields of a token.
    except (InputError, ValueError, TypeError) as error:
        raise InputError(f"{file}: {error}; {remedy}") from None


def check_has_words(tokenizer: Tokenizer, file: object) -> None:
    """Raises `InputError` for a vocabulary of special tokens alone, with which no text has a token to predict."""
    if tokenizer.vocab_size <= len(set(tokenizer.special_ids.values())):
        raise InputError(f"{file}: its vocabulary has special tokens alone; bring one with the words of the text")


def fingerprint(tokenizer: Tokenizer) -> str:
    """A hash that is equal for two tokenizers only if they give equal ids."""
    return hashlib.sha256(json.dumps(tokenizer.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def load(path: str, config: TokenizerConfig) -> Tokenizer:
    """The tokenizer in a vocab.txt (`kind` wordpiece) or a .model (sentencepiece). Errors name the file."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such tokenizer file")
    contents.check(file)
    try:
        if config.kind == "sentencepiece":
            return SentencePiece(file.read_bytes())
        return WordPiece(read_vocab(file), config.lowercase)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_vocab(file: Path) -> list[str]:
    """The pieces in a vocab.txt by their ids, as transformers reads it: a piece that occurs twice has its last id.

    The text on the line of an unused id is replaced by the next piece, so that equal ids always give an equal list.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # Editors on Windows write a byte order mark.
    except UnicodeDecodeError:
        raise InputError(
            "not UTF-8; save it so (if it is a SentencePiece model: --tokenizer.kind sentencepiece)"
        ) from None
    lines = lines[:-1] if lines[-1] == "" else lines
    # White space after a piece isn't part of it. (Chinese BERT has a line separator as a piece, which no text gives.)
    return by_ids({line.rstrip(" \t\u00a0\u3000"): i for i, line in enumerate(lines)})


def by_ids(ids: dict[str, int]) -> list[str]:
    """The pieces in the order of their ids; an unused id repeats the next piece."""
    pieces: list[str] = []
    for piece in sorted(ids, key=ids.__getitem__):
        pieces += [piece] * (ids[piece] + 1 - len(pieces))
    return pieces


def train(lines: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """A tokenizer of `config.vocab_size` pieces trained on the lines, which are iterated more than once."""
    tokenizer = _train_wordpiece(lines, config) if config.kind == "wordpiece" else _train_sentencepiece(lines, config)
    if tokenizer.vocab_size < config.vocab_size // 2:
        size = f"the corpus gives {tokenizer.vocab_size} pieces, far from tokenizer.vocab_size {config.vocab_size}"
        raise InputError(f"{size}; lower it, or bring more text")
    return tokenizer


def _train_wordpiece(lines: Iterable[str], config: TokenizerConfig) -> WordPiece:
    from tokenizers.trainers import WordPieceTrainer

    backend = WordPiece(list(SPECIAL), config.lowercase).backend
    first, inner = _alphabet(lines, backend)
    # The trainer breaks ties by the pieces' ids, and numbers single characters in the order of a hash map, a new
    # one each time. Given as special tokens, they are numbered first, and the vocabulary is always the same.
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[*SPECIAL, *first, *(f"##{character}" for character in inner)],
        initial_alphabet=first,
        limit_alphabet=len(first),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    vocab = backend.get_vocab()
    return WordPiece(sorted(vocab, key=vocab.__getitem__)[: config.vocab_size], config.lowercase)


def _alphabet(lines: Iterable[str], backend) -> tuple[list[str], list[str]]:
    """The `ALPHABET` most frequent characters, sorted; and those of them that occur within words, sorted."""
    words = Counter(chain.from_iterable(line.split(" ") for line in lines))
    counts: Counter[str] = Counter()
    inner = set()
    for word, n in words.items():
        for piece, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(word)):
            for character in piece:
                counts[character] += n
            inner.update(piece[1:])
    kept = sorted(counts, key=lambda character: (-counts[character], character))[:ALPHABET]
    return sorted(kept), sorted(inner.intersection(kept))


def _train_sentencepiece(lines: Iterable[str], config: TokenizerConfig) -> SentencePiece:
    import io

    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            normalization_rule_name="nmt_nfkc_cf" if config.lowercase else "nmt_nfkc",
            # Control symbols never come out of text, so a literal "[MASK]" stays text.
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=PAD,
            unk_piece=UNK,
            bos_piece=CLS,
            eos_piece=SEP,
            control_symbols=[MASK],
            max_sentence_length=1 << 20,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(f"SentencePiece can't train on this corpus: {str(error).splitlines()[-1]}") from None
    return SentencePiece(with_rounded_scores(model.getvalue()))
