"""Tokenizers in Hugging Face's folders: read as `AutoTokenizer` reads them, and written for it.

All files are combined into one tokenizer.json. If that is BERT's own WordPiece or a SentencePiece model, it becomes our
class for it; else it is used unchanged.
"""

import json
import sys
from pathlib import Path

from bert_jax.config import InputError, TokenizerConfig
from bert_jax.data import layouts, tokenizer_files, tokenizers
from bert_jax.data.layouts import CLS, SEP, SPECIAL, UNK
from bert_jax.data.no_tokenizer import NoTokenizer
from bert_jax.data.sentencepiece_model import BYTE, CONTROL, USER_DEFINED, pieces, settings
from bert_jax.data.tokenizer_files import CONFIG, OF_BERT, WHOLE, Declared, Token
from bert_jax.data.tokenizer_json import TokenizerJson, check_ids, loaded
from bert_jax.data.tokenizers import LONGEST_WORD, SentencePiece, Tokenizer, WordPiece, by_ids, read_vocab
from bert_jax.files import contents
from bert_jax.files.printable import say

SENTENCEPIECE_FILE = "spiece.model"
# The names in tokenizer_config.json of the parts of BERT's normalizer.
NORMALIZER = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}
OWN_MODEL = {
    "type": "WordPiece",
    "unk_token": UNK,
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": LONGEST_WORD,
}
# google-research's folders whose names don't tell the case; its own check counts them as uncased.
UNCASED = ("multilingual_l-12_h-768_a-12", "chinese_l-12_h-768_a-12")
AS_IT_IS = f'set "tokenizer_class": "PreTrainedTokenizerFast" in {CONFIG} to have {WHOLE} as it is'
SAVE = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers writes it"


# ---- Reading --------------------------------------------------------------------------------------------------------


def load(path: str, config: TokenizerConfig) -> Tokenizer:
    """The tokenizer in a folder (see `read`) or a file (see `tokenizers.load`)."""
    folder = Path(path)
    return read(folder) if folder.is_dir() else tokenizers.load(path, config)


def read(folder: Path) -> Tokenizer:
    """The tokenizer in a folder of Hugging Face, of google-research, or that `write` wrote.

    Its ids are those of `AutoTokenizer`, except that [CLS], [SEP], [MASK] and the like in a text are plain text. Raises
    `InputError` naming the file and the field where the folder asks for something that bert_jax can't do.
    """
    try:
        declared = tokenizer_files.read(folder)
        if not declared.whole and not declared.is_bert:
            remedy = f'{SAVE}, or set "tokenizer_class": "BertTokenizer" in {CONFIG} to read vocab.txt as BERT\'s'
            raise InputError(f"{folder}: {declared.kind} is read from its {WHOLE}, which isn't there; {remedy}")
        if not declared.whole and not (folder / "vocab.txt").exists():
            return _sentencepiece_alone(folder)
        if not declared.whole:
            contents.check(folder / "vocab.txt")
        general = _general(declared)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: its tokenizer's files are damaged ({error!r}); copy them again") from None
    return _as_wordpiece(general) or _as_sentencepiece(general, folder) or general


def _general(declared: Declared) -> TokenizerJson:
    file = declared.folder / (WHOLE if declared.whole else "vocab.txt")
    try:
        backend = _bert(declared, file) if declared.is_bert else _loaded(declared.whole)
        _add_tokens(backend, declared)
        if declared.is_bert:
            _finish_bert(backend, declared)
        backend.no_truncation()
        backend.no_padding()
        names = {role: token["content"] for role, token in declared.special.items()}
        return TokenizerJson(backend.to_str(), names, declared.token_types, declared.cut)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _loaded(whole: dict):
    return loaded(json.dumps(whole))


def _bert(declared: Declared, file: Path):
    """The tokenizer that transformers makes of BERT's vocabulary and tokenizer_config.json."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    if declared.whole:
        _check_part(declared, "model", {"type": "WordPiece"})
        vocab = declared.whole["model"]["vocab"]
        if not isinstance(vocab, dict):  # WordPiece would take a string for the name of a file, and read it.
            raise InputError(f"its model.vocab is {json.dumps(vocab)[:40]}, must be an object; copy it again")
    else:
        vocab = {piece: i for i, piece in enumerate(read_vocab(file))}
    backend = Backend(models.WordPiece(vocab, unk_token=declared.special["unk_token"]["content"]))
    check_ids(backend)
    given = {name: declared.config[field] for name, field in NORMALIZER.items() if field in declared.config}
    backend.normalizer = normalizers.BertNormalizer(**{"lowercase": _lowercases(declared, vocab), **given})
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    if declared.whole:
        own = contents.json_value(backend.to_str())
        for part, without in (("model", ["vocab"]), ("normalizer", given), ("pre_tokenizer", [])):
            _check_part(declared, part, {n: value for n, value in own[part].items() if n not in without})
    return backend


def _check_part(declared: Declared, part: str, expected: dict) -> None:
    """Checks that tokenizer.json agrees with what its class builds: transformers 4 uses the former, 5 the latter."""
    values = declared.whole.get(part) or {"type": None}
    for name, value in expected.items():
        if (other := values.get(name, value)) != value:
            what = f"{part}.{name} is {json.dumps(other)}, but {declared.kind}'s {json.dumps(value)}"
            remedy = f'say "{NORMALIZER[name]}" in {CONFIG}' if name in NORMALIZER else AS_IT_IS
            raise InputError(f"its {what}, so that versions of transformers differ; {remedy}")


def _lowercases(declared: Declared, vocab: dict[str, int]) -> bool:
    """Whether a folder whose tokenizer_config.json doesn't say it is uncased.

    google-research's folders say it in their name only; else a vocabulary without capitals, apart from placeholders in
    brackets, is uncased.
    """
    if (declared.folder / "config.json").exists():
        return True  # The default of transformers.
    if "lowercase" in (normalizer := declared.whole.get("normalizer") or {}):
        return normalizer["lowercase"]
    name = declared.folder.absolute().name.lower()
    if name in UNCASED or "cased" in name:
        return name in UNCASED or "uncased" in name
    return not any(piece != piece.lower() for piece in vocab if piece[:1] not in "[<")


def _add_tokens(backend, declared: Declared) -> None:
    """Adds the declared tokens, and checks that they get their declared ids."""
    _add(backend, [token for _, token in sorted(declared.added.items())])
    for i, token in declared.added.items():
        if (other := backend.token_to_id(token["content"])) != i:
            remedy = "number added tokens from the vocabulary's end on, without gaps"
            raise InputError(f"{token['content']!r} is said to have id {i}, but has {other}; {remedy}")
    needed = {role: declared.special[role]["content"] for role in OF_BERT if role in declared.special}
    if missing := {role: content for role, content in needed.items() if backend.token_to_id(content) is None}:
        roles = ", ".join(f"{role} is {content!r}" for role, content in missing.items())
        remedy = f"bring the vocabulary that has them, or name its own in {CONFIG}"
        raise InputError(f"the vocabulary lacks {', '.join(missing.values())} ({roles}); {remedy}")
    _add(backend, [*declared.special.values(), *declared.more])


def _add(backend, tokens: list[Token]) -> None:
    from tokenizers import AddedToken

    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token in tokens:
        if token["content"] not in known:
            known.add(token["content"])
            backend.add_tokens([AddedToken(**token)])


def _finish_bert(backend, declared: Declared) -> None:
    from tokenizers import processors

    names = [declared.special[f"{role}_token"]["content"] for role in ("sep", "cls")]
    backend.post_processor = processors.BertProcessing(*((name, backend.token_to_id(name)) for name in names))
    if declared.whole:
        built, given = (layouts.from_post_processor(x.post_processor) for x in (backend, _loaded(declared.whole)))
        if built != given:
            raise InputError(
                f"its post_processor isn't {declared.kind}'s, so that versions of transformers differ; {AS_IT_IS}"
            )


def _as_wordpiece(general: TokenizerJson) -> WordPiece | None:
    """The same tokenizer as WordPiece, where it is BERT's own; else None."""
    whole = contents.json_value(general.content)
    model, normalizer = whole["model"], whole["normalizer"] or {}
    if any(model.get(name) != value for name, value in OWN_MODEL.items()) or not normalizer.get("clean_text"):
        return None
    if whole["pre_tokenizer"] != {"type": "BertPreTokenizer"} or not set(SPECIAL) <= model["vocab"].keys():
        return None
    tokens = sorted(whole["added_tokens"], key=lambda token: token["id"])
    tokenizer = WordPiece(
        by_ids(model["vocab"]),
        lowercase=normalizer["lowercase"],
        strip_accents=normalizer["strip_accents"],
        split_chinese=normalizer["handle_chinese_chars"],
        added=[tokenizer_files.as_token(token) for token in tokens if token["content"] not in SPECIAL],
    )
    return tokenizer if tokenizer.backend.get_vocab() == general.ids and _alike(tokenizer, general) else None


def _as_sentencepiece(general: TokenizerJson, folder: Path) -> SentencePiece | None:
    """The same tokenizer as SentencePiece, where the folder holds the model that it was made from; else None."""
    if not (folder / SENTENCEPIECE_FILE).exists():
        return None
    tokenizer = _loaded_sentencepiece(folder / SENTENCEPIECE_FILE)
    given = contents.json_value(general.content)
    if given["model"]["type"] not in ("Unigram", "BPE") or not _alike(tokenizer, general):
        return None
    converted = contents.json_value(_from_sentencepiece(tokenizer).to_str())
    same = all(converted[part] == given[part] for part in ("model", "normalizer", "pre_tokenizer"))
    return tokenizer if same else None


def _alike(a: Tokenizer, b: Tokenizer) -> bool:
    return (a.vocab_size, a.special_ids, a.layout) == (b.vocab_size, b.special_ids, b.layout)


def _sentencepiece_alone(folder: Path) -> SentencePiece:
    """The SentencePiece model of a folder without tokenizer.json, if the embeddings' rows are its own ids: then it has
    BERT's special pieces itself."""
    files = [file for file in sorted(folder.glob("*.model")) if file.is_file()]
    if not files:
        raise InputError(f"{folder}: holds no tokenizer; it needs vocab.txt or {WHOLE}")
    if files[0].name == SENTENCEPIECE_FILE:
        tokenizer = _loaded_sentencepiece(files[0])
        if tokenizer.vocab_size == len(pieces(tokenizer.model)):
            return tokenizer
    remedy = f"bring its {WHOLE}: {SAVE}"
    raise InputError(f"{files[0]}: not each id there is the model's (XLM-R's are one higher); {remedy}")


def _loaded_sentencepiece(file: Path) -> SentencePiece:
    contents.check(file)
    try:
        return SentencePiece(file.read_bytes())
    except InputError as error:
        raise InputError(f"{file}: {error}; copy it again") from None


# ---- Writing --------------------------------------------------------------------------------------------------------


def write(tokenizer: Tokenizer, folder: Path, longest: int) -> None:
    """Writes the files that `AutoTokenizer` and `read` read; `longest` is the model's number of positions.

    In transformers, a special token spelled out in a text becomes the token.
    """
    if isinstance(tokenizer, NoTokenizer):
        say(f"no tokenizer is written: {tokenizer.reason}", file=sys.stderr)
        return
    config = {"model_max_length": longest, **_written(tokenizer, folder)}
    added = tokenizer_files.read_json(folder / WHOLE)["added_tokens"]
    config["added_tokens_decoder"] = {str(token.pop("id")): token for token in added}
    roles = {config[name] for name in config if name.endswith("_token")}
    if others := [token["content"] for token in added if token["special"] and token["content"] not in roles]:
        config["additional_special_tokens"] = others  # So that decoding can skip them too.
    _write_json(folder / CONFIG, config)
    special = {role: config[role] for role in OF_BERT if role in config}
    _write_json(folder / "special_tokens_map.json", special)


def _written(tokenizer: Tokenizer, folder: Path) -> dict:
    """Writes tokenizer.json and the vocabulary's file; returns the fields of tokenizer_config.json."""
    from tokenizers import Tokenizer as Backend

    inputs = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    if isinstance(tokenizer, TokenizerJson):
        tokenizer.whole.save(str(folder / WHOLE))
        if not tokenizer.token_types:
            inputs = {} if tokenizer.token_types is None else {"model_input_names": ["input_ids", "attention_mask"]}
        cut = {} if tokenizer.truncation_side == "right" else {"truncation_side": tokenizer.truncation_side}
        return {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer.names, **cut, **inputs}
    names = {piece: tokenizer.pieces()[tokenizer.special_ids[piece]] for piece in SPECIAL}
    roles = {role: names[piece] for role, piece in OF_BERT.items()}
    if isinstance(tokenizer, WordPiece):
        backend = Backend.from_str(tokenizer.backend.to_str())
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in tokenizer.vocab), encoding="utf-8")
        options = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": tokenizer.options["lowercase"],
            "strip_accents": tokenizer.options["strip_accents"],
            "tokenize_chinese_chars": tokenizer.options["split_chinese"],
        }
    else:
        assert isinstance(tokenizer, SentencePiece)
        backend = _from_sentencepiece(tokenizer)
        (folder / SENTENCEPIECE_FILE).write_bytes(tokenizer.model)
        options = {"tokenizer_class": "PreTrainedTokenizerFast"}
    _finish(backend, names, tokenizer.special_ids)
    backend.save(str(folder / WHOLE))
    return {**options, **roles, **inputs}


def _from_sentencepiece(tokenizer: SentencePiece):
    """A tokenizer of the `tokenizers` library with the same segmentation.

    There are exceptions: `tokenizers` applies the charsmap to whole graphemes, so a letter with two or more combining
    marks, and half-width katakana with a voicing mark, can become something else. In models that bert_jax didn't train,
    spaces before user-defined symbols are lost, and between segmentations with nearly equal scores, SentencePiece's
    rounding decides.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    how, vocabulary = settings(tokenizer.model), pieces(tokenizer.model)
    if how.kind not in ("unigram", "bpe") or how.whitespace_as_suffix:
        raise InputError(f"a SentencePiece model of the kind {how.kind} can't be written as tokenizer.json")
    scores = [(piece, score) for piece, score, _ in vocabulary]
    bytes_too = {"byte_fallback": any(kind == BYTE for _, _, kind in vocabulary)}
    if how.kind == "unigram":
        backend = Tokenizer(models.Unigram(scores, unk_id=tokenizer.special_ids[UNK], **bytes_too))
    else:
        ids = {piece: i for i, (piece, _) in enumerate(scores)}
        unknown, _ = scores[tokenizer.special_ids[UNK]]
        backend = Tokenizer(models.BPE(ids, _merges(dict(scores)), unk_token=unknown, fuse_unk=True, **bytes_too))
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(how.charsmap)] if how.charsmap else []
    if how.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    prepend = "first" if how.add_dummy_prefix else "never"
    across = any("▁" in piece[1:] for piece, _ in scores)  # Whether a piece can contain a space.
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend, split=not across)
    backend.decoder = decoders.Metaspace("▁", prepend)
    symbols = [(piece, kind == CONTROL) for piece, _, kind in vocabulary if kind in (CONTROL, USER_DEFINED)]
    backend.add_tokens([AddedToken(piece, normalized=False, special=control) for piece, control in symbols])
    return backend


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """The pairs of pieces that are merged, best score first: SentencePiece stores only the pieces."""
    pairs = [
        (-score, len(piece[:at]), piece[:at], piece[at:])
        for piece, score in scores.items()
        for at in range(1, len(piece))
        if piece[:at] in scores and piece[at:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(pairs)]


def _finish(backend, names: dict[str, str], ids: dict[str, int]) -> None:
    """Adds the post-processor [CLS] A [SEP] B [SEP] with token types, and special tokens that are found in text."""
    from tokenizers import AddedToken, processors

    # In the order of their ids, since tokens beyond the vocabulary are numbered in the order in which they are added.
    in_order = sorted(names, key=ids.__getitem__)
    backend.add_special_tokens([AddedToken(names[piece], normalized=False, special=True) for piece in in_order])
    cls, sep = names[CLS], names[SEP]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, ids[CLS]), (sep, ids[SEP])],
    )


def _write_json(file: Path, values: dict) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
