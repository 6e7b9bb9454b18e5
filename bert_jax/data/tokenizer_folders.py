"""Tokenizers as Hugging Face's folders hold them: vocab.txt, tokenizer.json, tokenizer_config.json."""

import json
from pathlib import Path
from typing import Any

from bert_jax import contents
from bert_jax.config import InputError
from bert_jax.data.sentencepiece_model import BYTE, CONTROL, USER_DEFINED, pieces, settings
from bert_jax.data.tokenizers import CLS, SEP, SPECIAL, UNK, SentencePiece, Tokenizer, WordPiece

SENTENCEPIECE_FILE = "spiece.model"
# Whose tokenizer.json is the whole tokenizer. Of others, tokenizer_config.json decides how text is normalised.
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")
CLASSES = ("BertTokenizer", "BertTokenizerFast", *GENERIC)
ADDED_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


# ---- Reading --------------------------------------------------------------------------------------------------------


def of_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face or google-research folder, or one that `to_folder` wrote.

    Its ids are those of `AutoTokenizer` there, but that special tokens written out in a text are text. Raises
    `InputError` where it isn't BERT's WordPiece or a SentencePiece model of ours.
    """
    if (folder / SENTENCEPIECE_FILE).exists():
        contents.check(folder / SENTENCEPIECE_FILE)
        return SentencePiece((folder / SENTENCEPIECE_FILE).read_bytes())
    config, whole = _json(folder / "tokenizer_config.json"), _json(folder / "tokenizer.json")
    kind = config.get("tokenizer_class") or CLASSES[0]
    if kind not in CLASSES:
        raise InputError(f"{folder / 'tokenizer_config.json'}: {kind} isn't BERT's WordPiece tokenizer")
    for name, piece in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True):
        given = config.get(f"{name}_token") or piece
        given = given["content"] if isinstance(given, dict) else given
        if given != piece:
            raise InputError(f"{folder / 'tokenizer_config.json'}: {name}_token is {given!r}; only {piece} is read")
    if whole:
        _check_bert(whole, folder / "tokenizer.json")
        vocab = _in_order(whole["model"]["vocab"], 0, folder / "tokenizer.json")
    elif (folder / "vocab.txt").exists():
        vocab = _lines(folder / "vocab.txt")
    else:
        raise InputError(f"{folder}: holds no tokenizer; it takes vocab.txt or tokenizer.json")
    try:
        return WordPiece(vocab, **_options(config, whole, folder, vocab), added=_added(config, whole, folder, vocab))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None


def _options(config: dict, whole: dict, folder: Path, vocab: list[str]) -> dict[str, Any]:
    """How text is normalised: what tokenizer_config.json says, else tokenizer.json, else the default."""
    normalizer = whole.get("normalizer") or {}
    if config.get("tokenizer_class") in GENERIC and normalizer:
        config = {}
    uncased = _is_uncased(folder, vocab) if not (folder / "config.json").exists() else True
    return {
        "lowercase": config.get("do_lower_case", normalizer.get("lowercase", uncased)),
        "strip_accents": config.get("strip_accents", normalizer.get("strip_accents")),
        "split_chinese": config.get("tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True)),
    }


def _is_uncased(folder: Path, vocab: list[str]) -> bool:
    """google-research's folders say it in their name alone; else a vocabulary without capitals is uncased."""
    name = folder.absolute().name.lower()
    if "cased" in name:
        return "uncased" in name
    return not any(piece != piece.lower() for piece in vocab if piece not in SPECIAL)


def _check_bert(whole: dict, file: Path) -> None:
    """That a tokenizer.json is BERT's."""
    try:
        parts = {
            "model": (whole["model"].get("type", "WordPiece"), "WordPiece"),
            "normalizer": ((whole["normalizer"] or {}).get("type"), "BertNormalizer"),
            "pre_tokenizer": ((whole["pre_tokenizer"] or {}).get("type"), "BertPreTokenizer"),
            "continuing_subword_prefix": (whole["model"].get("continuing_subword_prefix", "##"), "##"),
        }
        whole["model"]["vocab"].items()
    except (KeyError, AttributeError, TypeError):
        raise InputError(f"{file}: not the tokenizer.json of a WordPiece tokenizer") from None
    for name, (there, expected) in parts.items():
        if there != expected:
            raise InputError(f"{file}: its {name} is {there}, only BERT's, {expected}, is read")


def _added(config: dict, whole: dict, folder: Path, vocab: list[str]) -> list[dict]:
    """The tokens besides BERT's own, in the order of their ids; those beyond the vocabulary fill the ids behind it."""
    found: dict[int, dict] = {}
    for content, i in _json(folder / "added_tokens.json").items():
        found[i] = {"content": content}
    for token in whole.get("added_tokens") or []:
        found[token["id"]] = token
    for i, token in (config.get("added_tokens_decoder") or {}).items():
        found[int(i)] = token
    tokens = [
        {name: value for name, value in token.items() if name in ADDED_FIELDS}
        for _, token in sorted(found.items())
        if token["content"] not in SPECIAL
    ]
    beyond = {token["content"]: i for i, token in found.items() if i >= len(vocab)}
    _in_order(beyond, len(vocab), folder)
    return tokens


def _in_order(ids: dict[str, int], first: int, file: Path) -> list[str]:
    """The tokens by their ids, which must be first, first + 1, ..."""
    tokens = sorted(ids, key=ids.get)
    if [ids[token] for token in tokens] != list(range(first, first + len(tokens))):
        raise InputError(f"{file}: the ids of its tokens from {first} on have gaps, or two have the same")
    return tokens


def _lines(file: Path) -> list[str]:
    contents.check(file)
    try:
        vocab = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8") from None
    return vocab[:-1] if vocab[-1] == "" else vocab


def _json(file: Path) -> dict:
    return contents.json_object(file) if file.exists() else {}


# ---- Writing --------------------------------------------------------------------------------------------------------


def to_folder(tokenizer: Tokenizer, folder: Path, longest: int) -> None:
    """Writes the files that `AutoTokenizer` and `of_folder` read; `longest` is the model's number of positions.

    There, a special token written out in a text becomes the token.
    """
    from tokenizers import Tokenizer

    names = {piece: tokenizer.pieces()[tokenizer.special_ids[piece]] for piece in SPECIAL}
    special = {f"{name}_token": names[f"[{name.upper()}]"] for name in ("pad", "unk", "cls", "sep", "mask")}
    config = {**special, "model_max_length": longest}
    if isinstance(tokenizer, WordPiece):
        backend = Tokenizer.from_str(tokenizer.backend.to_str())
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in tokenizer.vocab), encoding="utf-8")
        config |= {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": tokenizer.options["lowercase"],
            "strip_accents": tokenizer.options["strip_accents"],
            "tokenize_chinese_chars": tokenizer.options["split_chinese"],
        }
    else:
        backend = _of_sentencepiece(tokenizer)
        (folder / SENTENCEPIECE_FILE).write_bytes(tokenizer.model)
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    _finish(backend, names, tokenizer.special_ids)
    backend.save(str(folder / "tokenizer.json"))
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    decoder = {str(token.pop("id")): token for token in added}
    config |= {"added_tokens_decoder": decoder, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)


def _of_sentencepiece(tokenizer: SentencePiece):
    """The same segmentation by the `tokenizers` library.

    Not quite always: `tokenizers` applies the charsmap to what a reader takes for one character, so that a letter with
    two or more combining marks, and half-width katakana with a voicing mark, can become something else. In models of
    other makers, spaces before user-defined symbols are lost, and between segmentations that score about the same,
    SentencePiece's rounding decides, which ours avoid.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    how, found = settings(tokenizer.model), pieces(tokenizer.model)
    if how.kind not in ("unigram", "bpe") or how.whitespace_as_suffix:
        raise InputError(f"a SentencePiece model of the kind {how.kind} can't be written as tokenizer.json")
    scores = [(piece, score) for piece, score, _ in found]
    bytes_too = {"byte_fallback": any(kind == BYTE for _, _, kind in found)}
    if how.kind == "unigram":
        backend = Tokenizer(models.Unigram(scores, unk_id=tokenizer.special_ids[UNK], **bytes_too))
    else:
        ids = {piece: i for i, (piece, _) in enumerate(scores)}
        unknown, _ = scores[tokenizer.special_ids[UNK]]
        backend = Tokenizer(models.BPE(ids, _merges(dict(scores)), unk_token=unknown, fuse_unk=True, **bytes_too))
    steps = [normalizers.Precompiled(how.charsmap)] if how.charsmap else []
    if how.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    prepend = "first" if how.add_dummy_prefix else "never"
    across = any("▁" in piece[1:] for piece, _ in scores)  # Else no piece goes over a space.
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend, split=not across)
    backend.decoder = decoders.Metaspace("▁", prepend)
    symbols = [(piece, kind == CONTROL) for piece, _, kind in found if kind in (CONTROL, USER_DEFINED)]
    backend.add_tokens([AddedToken(piece, normalized=False, special=control) for piece, control in symbols])
    return backend


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """The pairs that make a piece, the best scored first: SentencePiece keeps the pieces alone."""
    pairs = [
        (-score, len(piece[:at]), piece[:at], piece[at:])
        for piece, score in scores.items()
        for at in range(1, len(piece))
        if piece[:at] in scores and piece[at:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(pairs)]


def _finish(backend, names: dict[str, str], ids: dict[str, int]) -> None:
    """[CLS] A [SEP] B [SEP] with token types, and special tokens that are found in text."""
    from tokenizers import AddedToken, processors

    # In the order of their ids, as those beyond the vocabulary are numbered in the order they come.
    in_order = sorted(names, key=ids.get)
    backend.add_special_tokens([AddedToken(names[piece], normalized=False, special=True) for piece in in_order])
    cls, sep = names[CLS], names[SEP]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, ids[CLS]), (sep, ids[SEP])],
    )


def _write_json(file: Path, values: dict) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
