"""Generated tokenizer folders of many kinds: AutoTokenizer's ids in, the same ids out, and the same tokenizer again."""

import json
import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from bert_jax.data import tokenizer_folders, tokenizers
from bert_jax.tasks.classification import model_input

WORDS = [
    "the",
    "quick",
    "##ick",
    "qu",
    "brown",
    "fox",
    "##es",
    "cafe",
    "café",
    "The",
    "中",
    "文",
    "中文",
    "mask",
    "[",
    "]",
    "<",
    ">",
    "/",
    "s",
    ".",
    ",",
    "é",
    "e",
    "##e",
    "a",
    "b",
    "##b",
    "un",
    "##used",
]
TEXTS = [
    "The quick brown foxes.",
    "café 中文 the",
    "un un",
    "a\u0300 b <ent>fox[unused1] the",
    "unused\u200bfox \ufffd a",
]
MARKS = ["[unused1]", "[unused2]", "<ent>", "New York"]
NAMES = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
BERTS = {name: f"[{name.upper()}]" for name in NAMES}


def written(folder, name: str, values: dict) -> None:
    (folder / name).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def declared(rng: random.Random, folder, config: dict, marks: list[str]) -> None:
    """Special tokens in one of the places where versions of transformers have put them."""
    match rng.randrange(6):
        case 0:
            written(folder, "special_tokens_map.json", {"additional_special_tokens": marks})
        case 1:
            config["additional_special_tokens"] = marks
        case 2:
            config["extra_special_tokens"] = marks
        case 3:
            config["extra_special_tokens"] = {f"mark{i}_token": mark for i, mark in enumerate(marks)}
        case 4:
            config |= dict(zip(("bos_token", "eos_token", "image_token"), marks, strict=False))
        case 5:
            token = dict(lstrip=rng.random() < 0.5, rstrip=rng.random() < 0.3, single_word=rng.random() < 0.3)
            values = {"content": marks[0], "normalized": rng.random() < 0.3, **token}
            written(folder, "special_tokens_map.json", {"eos_token": values, "additional_special_tokens": marks[1:]})


def bert_folder(rng: random.Random, folder) -> None:
    """A class of BERT's: vocab.txt, or with it what tokenizer_config.json says."""
    names = BERTS if rng.random() < 0.7 else {**BERTS, **{n: NAMES[n] for n in rng.sample(list(NAMES), 2)}}
    vocab = [*names.values(), *MARKS[: rng.randrange(4)], *rng.sample(WORDS, len(WORDS))]
    for _ in range(rng.randrange(3)):
        vocab.insert(rng.randrange(len(vocab)), rng.choice(["", "", "fox", "[unused1]"]))
    ends = rng.choice(["\n", "\n", "\r\n"])
    (folder / "vocab.txt").write_bytes((ends.join(vocab) + rng.choice(["", ends])).encode())
    config = {f"{name}_token": token for name, token in names.items() if token != BERTS[name] or rng.random() < 0.3}
    options = {
        "do_lower_case": (True, False),
        "strip_accents": (None, True, False),
        "tokenize_chinese_chars": (True, False),
    }
    config |= {name: rng.choice(values) for name, values in options.items() if rng.random() < 0.5}
    kinds = [None, "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast"]
    config |= {"tokenizer_class": kind} if (kind := rng.choice(kinds)) else {}
    common(rng, folder, config, [mark for mark in MARKS if mark in vocab])
    if rng.random() < 0.3:
        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def general_folder(rng: random.Random, folder) -> None:
    """A tokenizer.json that is the whole tokenizer."""
    names = rng.choice([BERTS, NAMES])
    pieces = [*names.values(), *MARKS[: rng.randrange(4)], *WORDS]
    backend = rng.choice([wordpiece, unigram, byte_level, word_level])(rng, pieces, names["unk"])
    special = [AddedToken(name, special=True, lstrip=name == names["mask"]) for name in names.values()]
    backend.add_special_tokens(special[: rng.randrange(3, 6)])
    cls, sep = ((names[name], backend.token_to_id(names[name])) for name in ("cls", "sep"))
    template = dict(
        single=f"{cls[0]} $A {sep[0]}",
        pair=rng.choice(["{0} $A {1} $B:1 {1}:1", "{0} $A {1} {1} $B {1}", "{0} $A {1} $B {1}"]).format(cls[0], sep[0]),
        special_tokens=[cls, sep],
    )
    backend.post_processor = rng.choice(
        [
            processors.TemplateProcessing(**template),
            processors.TemplateProcessing(**template),
            processors.BertProcessing(sep, cls),
            processors.RobertaProcessing(sep, cls),
        ]
    )
    if rng.random() < 0.3:
        backend.enable_truncation(5, direction=rng.choice(["left", "right"]))
        backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    config = {f"{name}_token": token for name, token in names.items() if names is NAMES or rng.random() < 0.7}
    config["tokenizer_class"] = rng.choice(["PreTrainedTokenizerFast", "TokenizersBackend"])
    common(rng, folder, config, [mark for mark in MARKS if mark in pieces] or MARKS[:1])


def common(rng: random.Random, folder, config: dict, marks: list[str]) -> None:
    """What both kinds may have: more special tokens, the model's inputs, the side of the cut."""
    if marks and rng.random() < 0.6:
        declared(rng, folder, config, marks)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    if rng.random() < 0.6 or "Fast" in config.get("tokenizer_class", "") and "Bert" not in config["tokenizer_class"]:
        config["model_input_names"] = rng.choice([inputs, inputs[::2]])
    config |= {"truncation_side": "left"} if rng.random() < 0.2 else {}
    moved = rng.random() < 0.2 and "tokenizer_class" in config
    written(
        folder,
        "config.json",
        {"model_type": "bert", **({"tokenizer_class": config.pop("tokenizer_class")} if moved else {})},
    )
    if config or rng.random() < 0.5:
        written(folder, "tokenizer_config.json", config)


def bert_normalizer(rng: random.Random):
    names = ("clean_text", "handle_chinese_chars", "lowercase")
    return normalizers.BertNormalizer(**{name: rng.random() < 0.6 for name in names})


def wordpiece(rng: random.Random, pieces: list[str], unk: str) -> Tokenizer:
    ids = {piece: i + (i > 7) * rng.randrange(2) for i, piece in enumerate(pieces)}
    ids = {piece: i for i, piece in {i: piece for piece, i in ids.items()}.items()}
    longest = rng.choice([100, 100, 4])
    backend = Tokenizer(models.WordPiece(ids, unk_token=unk, max_input_chars_per_word=longest))
    backend.normalizer = (
        rng.choice([bert_normalizer(rng), bert_normalizer(rng), normalizers.NFC(), None]) or backend.normalizer
    )
    splitters = [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace()]
    backend.pre_tokenizer = rng.choice(splitters)
    backend.decoder = decoders.WordPiece()
    return backend


def unigram(rng: random.Random, pieces: list[str], unk: str) -> Tokenizer:
    characters = sorted(set("".join(pieces)) - {"#"})
    scored = dict.fromkeys([*pieces, *characters], -9.0) | {f"▁{p}": -5.0 for p in pieces if p.isalpha()} | {"▁": -4.0}
    backend = Tokenizer(models.Unigram(list(scored.items()), unk_id=list(scored).index(unk)))
    backend.normalizer = rng.choice([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = rng.choice(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        ]
    )
    backend.decoder = decoders.Metaspace()
    return backend


def byte_level(rng: random.Random, pieces: list[str], unk: str) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("f", "o"), ("fo", "x")]
    vocab = dict.fromkeys([*pieces[: len(NAMES)], *alphabet, *("".join(pair) for pair in merges)])
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(vocab)}, merges, unk_token=unk))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.5)
    backend.decoder = decoders.ByteLevel()
    return backend


def word_level(rng: random.Random, pieces: list[str], unk: str) -> Tokenizer:
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=unk))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = rng.choice([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    return backend


def inputs_of(theirs, *texts: str, **options) -> tuple[list[int], list[int]]:
    """Ids and token types; zeros where the model isn't given any."""
    found = theirs(*texts, **options)
    return found["input_ids"], found.get("token_type_ids", [0] * len(found["input_ids"]))


def assert_as_theirs(tokenizer, folder) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(TEXTS)
    assert ids == [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert model_input(tokenizer, ids[:1], 512) == inputs_of(theirs, TEXTS[0])
    assert model_input(tokenizer, ids[1:2], 6) == inputs_of(theirs, TEXTS[1], truncation=True, max_length=6)
    assert model_input(tokenizer, ids[:2], 512) == inputs_of(theirs, *TEXTS[:2])
    assert model_input(tokenizer, ids[:2], 9) == inputs_of(theirs, *TEXTS[:2], truncation=True, max_length=9)
    assert [i for i, _ in tokenizer.encode_with_spans(TEXTS)] == ids
    mask = theirs.mask_token or "[MASK]"
    expected = theirs(f"the {mask} fox{mask}", add_special_tokens=False)["input_ids"]
    if theirs.mask_token or "[MASK]" in theirs.added_tokens_encoder:
        assert tokenizer.encode_masked("the [MASK] fox[MASK]") == expected


@pytest.mark.parametrize("seed", [*range(30), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(30, 500))])
def test_in_and_out_again(tmp_path, seed):
    rng = random.Random(seed)
    source, exported = tmp_path / "source", tmp_path / "exported"
    source.mkdir(), exported.mkdir()
    rng.choice([bert_folder, general_folder])(rng, source)
    tokenizer = tokenizer_folders.read(source)
    assert_as_theirs(tokenizer, source)
    tokenizer_folders.write(tokenizer, exported, 512)
    written(exported, "config.json", {"model_type": "bert"})
    assert tokenizer_folders.read(exported).to_dict() == tokenizer.to_dict()
    assert tokenizers.from_dict(json.loads(json.dumps(tokenizer.to_dict()))).to_dict() == tokenizer.to_dict()
    assert_as_theirs(tokenizer, exported)
