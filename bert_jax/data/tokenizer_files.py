"""What the files of a Hugging Face folder declare about its tokenizer, read where `AutoTokenizer` reads it."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from bert_jax.config import InputError
from bert_jax.data.layouts import SPECIAL
from bert_jax.files import contents

CONFIG, WHOLE, MAP = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
# Classes that build BERT's tokenizer from its vocabulary and tokenizer_config.json; the last has no token types.
BERT = ("BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "ConvBertTokenizer", "DistilBertTokenizer")
# Classes that split texts in Python, even if there is a tokenizer.json.
PYTHON = (
    *("BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer", "RoCBertTokenizer", "BertGenerationTokenizer"),
    *("CanineTokenizer", "ByT5Tokenizer", "TapasTokenizer", "FlaubertTokenizer", "XLMTokenizer", "EsmTokenizer"),
    *("BioGptTokenizer", "CpmTokenizer", "BartphoTokenizer", "MarianTokenizer", "GPTNeoXJapaneseTokenizer"),
)
# The values of tokenizer_config.json's fields that bert_jax can do; others would change the ids. The first five fields
# are for tokenizers in Python, which transformers 5 no longer has for BERT; the next two are BertJapaneseTokenizer's.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "do_basic_tokenize": (True, None),
    "never_split": (None, []),
    "clean_text": (True, None),
    "wordpieces_prefix": ("##", None),
    "init_inputs": ([], None),
    "word_tokenizer_type": ("basic", None),
    "subword_tokenizer_type": ("wordpiece", None),
    "split_special_tokens": (False, None),
    "padding_side": ("right", None),  # On the left, padding would move the positions of a text.
    "truncation_side": ("right", "left", None),
    "auto_map": (None, {}),
    "fast_tokenizer_files": (None, [], [WHOLE]),
    "do_lower_case": (True, False),
    "tokenize_chinese_chars": (True, False),
    "strip_accents": (True, False, None),
}
ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
OF_BERT = {f"{piece[1:-1].lower()}_token": piece for piece in SPECIAL}
NEEDED = ("unk_token", "sep_token", "cls_token")
ADDED_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")

Token = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Declared:
    """What a folder declares about its tokenizer. Tokens have the fields of `tokenizers.AddedToken`."""

    folder: Path
    kind: str
    """The tokenizer's class, without "Fast"."""
    config: dict[str, Any]
    """The content of tokenizer_config.json."""
    whole: dict[str, Any]
    """The content of tokenizer.json; empty where there is none."""
    added: dict[int, Token]
    """Tokens that are found in a text before it is split, by their declared ids."""
    special: dict[str, Token]
    """Special tokens by their roles (cls_token, ...), with `ROLES` first, in that order."""
    more: list[Token]
    """Special tokens without a role."""

    @property
    def is_bert(self) -> bool:
        return self.kind in BERT

    @property
    def token_types(self) -> bool | None:
        """Whether the model is given token types. None: the folder doesn't say, and versions of transformers differ."""
        if names := self.config.get("model_input_names"):
            return "token_type_ids" in names
        return self.kind != BERT[-1] if self.is_bert else False if self.kind == "TokenizersBackend" else None

    @property
    def cut(self) -> Literal["left", "right"]:
        """The side on which texts that are too long are cut."""
        settings = self.whole.get("truncation") or {}
        return self.config.get("truncation_side") or settings.get("direction", "right").lower()


def read(folder: Path) -> Declared:
    """Reads a folder's files. Raises `InputError` where one is damaged, or asks for what bert_jax can't do."""
    config, whole = read_json(folder / CONFIG), read_json(folder / WHOLE)
    kind = _class(folder, config)
    _check_supported(folder, config, whole)
    more: dict[str, Any] = {}
    if "added_tokens_decoder" in config:
        added = {int(i): as_token(token) for i, token in config["added_tokens_decoder"].items()}
    else:  # transformers before 4.34 wrote other files, which are only read in this case.
        more = read_json(folder / MAP)
        added = {}
    if kind in BERT and (empty := [name for name in NEEDED if name in config and not config[name]]):
        raise InputError(f"{folder / CONFIG}: {empty[0]} is empty; name the token, or leave the field out")
    special, others = _special({**config, **more}, kind in BERT), _others(folder, config, more)
    if "added_tokens_decoder" not in config:
        names = {token["content"] for token in (*special.values(), *others)}
        for content, i in read_json(folder / "added_tokens.json").items():
            added[i] = as_token(content, special=content in names)
        added |= {token["id"]: as_token(token) for token in whole.get("added_tokens") or []}
    return Declared(folder, kind, config, whole, added, special, others)


def _class(folder: Path, config: dict) -> str:
    for name, values in ((CONFIG, config), ("config.json", read_json(folder / "config.json"))):
        if kind := values.get("tokenizer_class"):
            if kind.removesuffix("Fast") in PYTHON:
                remedy = "give the model's `apply` ids made by transformers"
                raise InputError(f"{folder / name}: tokenizer_class {kind} splits texts in Python, not here; {remedy}")
            return kind.removesuffix("Fast")
    return BERT[0]


def _check_supported(folder: Path, config: dict, whole: dict) -> None:
    for name, allowed in SUPPORTED.items():
        if name in config and not any(type(config[name]) is type(v) and config[name] == v for v in allowed):
            values = " or ".join(map(json.dumps, allowed))
            raise InputError(f"{folder / CONFIG}: {name} is {json.dumps(config[name])}; only {values} can be done here")
    if (padding := whole.get("padding")) and padding.get("direction") == "Left":
        raise InputError(f"{folder / WHOLE}: padding.direction is Left; only Right can be done here")
    space = (whole.get("pre_tokenizer") or {}).get("add_prefix_space")
    if space is not None and config.get("add_prefix_space", space) != space:
        raise InputError(f"{folder / CONFIG}: add_prefix_space isn't that of {WHOLE}; make them alike")
    if (whole.get("model") or {}).get("dropout"):
        raise InputError(f"{folder / WHOLE}: model.dropout makes ids at random; set it to null")


def _special(values: dict, is_bert: bool) -> dict[str, Token]:
    given = {n: v for n, v in values.items() if n.endswith("_token") and isinstance(v, str | dict) and v}
    given = {**OF_BERT, **given} if is_bert else given
    return {name: as_token(given[name], special=True) for name in dict.fromkeys((*ROLES, *given)) if name in given}


def _others(folder: Path, *files: dict) -> list[Token]:
    """Other special tokens, as a list or a dict: additional_special_tokens until transformers 4, extra_special_tokens
    since."""
    given = [
        values.get(name) or [] for values in files for name in ("extra_special_tokens", "additional_special_tokens")
    ]
    named = [as_token(token, special=True) for some in given if isinstance(some, dict) for token in some.values()]
    lists = [[as_token(token, special=True) for token in some] for some in given if some and isinstance(some, list)]
    if any([t["content"] for t in some] != [t["content"] for t in lists[0]] for some in lists):
        remedy = "versions of transformers read one or the other: give them the same"
        raise InputError(f"{folder / CONFIG}: lists other special tokens twice, not alike there and in {MAP}; {remedy}")
    return [*named, *(lists[0] if lists else [])]


def as_token(given: str | dict, **changes) -> Token:
    token = {"content": given} if isinstance(given, str) else {n: v for n, v in given.items() if n in ADDED_FIELDS}
    return {**token, **changes}


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    return contents.json_object(file) if file.exists() else {}
