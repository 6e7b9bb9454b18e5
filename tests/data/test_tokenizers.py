"""Ids against transformers' tokenizers; what a vocabulary must have."""

import json

import pytest

from bert_jax.config import InputError, TokenizerConfig
from bert_jax.data import tokenizers

ODD = [
    "Café naïve Ångström ﬁne ½ Ⅳ e\u0301",
    "中文字符和English混排，测试。 日本語テキスト 한국어 텍스트",
    "emoji 😀👩‍👩‍👧 ❤️ and flags 🇩🇪",
    "control \x00\x01 \x1c\x1d \x7f chars\tand\u00a0no-break\u2003spaces\u200bzero\ufeffwidth \ufffd",
    "don't [can't] U.S.A. $5.99 100% #tag @user http://a.b/c?d=e&f",
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101,
    "ÀÉÎÕÜ ß ſ İstanbul ΣΑΣ",
    "\u2028line\u2029separators\x85here\x0bthere",
    "   leading and trailing   ",
    "",
    "a\u0300\u0301b क्षि नमस्ते สวัสดี مرحبا שלום",
]
VOCABULARIES = [
    ("bert-base-uncased", True),
    ("bert-base-cased", False),
    ("bert-base-chinese", True),
    ("bert-base-multilingual-cased", False),
]


# One of so many parts of the text.
PARTS = [6, pytest.param(1, marks=pytest.mark.long)]


def real_lines(real_data, parts: int) -> list[str]:
    """Of about 5 MB: English, Chinese, and the odd ones."""
    english = (real_data / "corpus/wiki_en.txt").read_text()[: 3_500_000 // parts].split("\n")
    chinese = (real_data / "corpus/wiki_zh.txt").read_text()[: 600_000 // parts].split("\n")
    return english + chinese + ODD


def differing(lines: list[str], ours, theirs) -> list[str]:
    return [line for line, a, b in zip(lines, ours, theirs, strict=True) if a != b]


@pytest.mark.parametrize(("name", "lowercase"), VOCABULARIES)
@pytest.mark.parametrize("parts", PARTS)
def test_ids_equal_transformers_on_real_text(real_data, name, lowercase, parts):
    from transformers import BertTokenizer

    vocab = real_data / f"vocab/{name}-vocab.txt"
    ours = tokenizers.load(str(vocab), TokenizerConfig(lowercase=lowercase))
    theirs = BertTokenizer(str(vocab), do_lower_case=lowercase)
    lines = real_lines(real_data, parts)
    expected = theirs(lines, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
    assert differing(lines, ours.encode(lines), expected["input_ids"]) == []


@pytest.mark.parametrize(("name", "lowercase"), VOCABULARIES)
@pytest.mark.parametrize("parts", PARTS)
def test_ids_equal_the_legacy_tokenizer_but_for_known_lines(real_data, name, lowercase, parts):
    """The original's algorithm in Python puts cased text into NFC, and knows Greek's final sigma."""
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    vocab = real_data / f"vocab/{name}-vocab.txt"
    ours = tokenizers.load(str(vocab), TokenizerConfig(lowercase=lowercase))
    theirs = BertTokenizerLegacy(str(vocab), do_lower_case=lowercase)
    lines = real_lines(real_data, parts)
    expected = [theirs.convert_tokens_to_ids(theirs.tokenize(line)) for line in lines]
    decomposed, sigma = [ODD[0], ODD[10]], [ODD[6]]
    assert set(differing(lines, ours.encode(lines), expected)) == set(sigma if lowercase else decomposed)


# What google-research/bert's tokenization.py gives, recorded from it.
ORIGINAL = {
    "a\ue000b": ["[UNK]"],
    "\uf0b7 item": ["[UNK]", "item"],
    "a\U0002b820b": ["a", "[UNK]", "b"],
    "a\u061db": ["a", "[UNK]", "b"],
    "a\u08e2b": ["ab"],
    "a\u0898b": ["ab"],
    "e\u03a3.": ["e", "##ς", "."],
}


@pytest.mark.parametrize("text", ORIGINAL)
def test_where_the_original_differs_transformers_is_followed(tmp_path, text):
    from transformers import BertTokenizer

    vocab = [*tokenizers.SPECIAL, "a", "b", "ab", "e", "##ς", "##σ", ".", "item"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab))
    (ids,) = tokenizers.load(str(tmp_path / "vocab.txt"), TokenizerConfig()).encode([text])
    assert ids == BertTokenizer(str(tmp_path / "vocab.txt"))(text, add_special_tokens=False)["input_ids"]
    assert [vocab[i] for i in ids] != ORIGINAL[text]


def small_wordpiece(lowercase: bool = True):
    words = [
        "the",
        "qu",
        "##ick",
        "brown",
        "fox",
        "##es",
        "[",
        "]",
        "mask",
        "中",
        "文",
        ".",
        ",",
        "é",
        "e",
        "cafe",
        "café",
    ]
    return tokenizers.WordPiece([*tokenizers.SPECIAL, *words], lowercase)


def test_literal_special_tokens_in_text_are_split():
    tokenizer = small_wordpiece()
    assert [tokenizer.pieces()[i] for i in tokenizer.encode(["the [MASK] fox"])[0]] == ["the", "[", "mask", "]", "fox"]


@pytest.mark.parametrize(("lowercase", "piece"), [(True, "cafe"), (False, "café")])
def test_accents_go_only_from_an_uncased_model(lowercase, piece):
    tokenizer = small_wordpiece(lowercase)
    assert [tokenizer.pieces()[i] for i in tokenizer.encode(["café"])[0]] == [piece]


def test_words_encoded_before_give_the_same_ids(monkeypatch):
    monkeypatch.setattr(tokenizers, "CACHED_WORDS", 2)
    tokenizer, texts = small_wordpiece(), ["the quick brown foxes.", "中文 the", "", "quick quick"]
    assert tokenizer.encode(texts) == tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]


def test_trained_wordpiece():
    lines = ["the quick brown fox jumps over the lazy dog"] * 20
    tokenizer = tokenizers.train(lines, TokenizerConfig(vocab_size=80))
    assert list(tokenizer.special_ids.values()) == [0, 1, 2, 3, 4]
    assert tokenizer.decode(tokenizer.encode(["The quick DOG"])[0]) == "the quick dog"
    assert tokenizer.encode(["Ж"])[0] == [tokenizer.special_ids[tokenizers.UNK]]


def test_trained_sentencepiece_and_its_file(corpus, tmp_path):
    import sentencepiece

    config = TokenizerConfig(kind="sentencepiece", vocab_size=120)
    tokenizer = tokenizers.train(corpus.read_text().split("\n"), config)
    assert [tokenizer.special_ids[p] for p in tokenizers.SPECIAL] == [0, 1, 2, 3, 4]
    text = "The dog watches a small bird."
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text.lower()
    assert tokenizer.special_ids["[MASK]"] not in tokenizer.encode(["a [MASK] b"])[0]
    file = tmp_path / "trained.model"
    file.write_bytes(tokenizer.model)
    loaded = tokenizers.load(str(file), config)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(file))
    assert loaded.encode([text])[0] == theirs.encode(text)
    assert tokenizers.fingerprint(loaded) == tokenizers.fingerprint(tokenizer)


def test_foreign_sentencepiece_model_gets_the_special_pieces_it_lacks(corpus, tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "foreign"), vocab_size=70, minloglevel=2
    )
    tokenizer = tokenizers.load(str(tmp_path / "foreign.model"), TokenizerConfig(kind="sentencepiece"))
    assert tokenizer.vocab_size == 72
    assert [tokenizer.special_ids[p] for p in tokenizers.SPECIAL] == [70, 0, 1, 2, 71]


@pytest.mark.parametrize("make", [small_wordpiece, lambda: small_wordpiece(False)])
def test_json_round_trip(make):
    tokenizer = make()
    again = tokenizers.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    text = ["The quick brown foxes. 中文 [MASK]"]
    assert again.encode(text) == tokenizer.encode(text)
    assert tokenizers.fingerprint(again) == tokenizers.fingerprint(tokenizer)


def test_fingerprints_are_those_of_the_first_versions():
    """Examples and checkpoints of then are told by them."""
    entity = dict(content="<e>", single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    vocab = [*tokenizers.SPECIAL, "a", "##b"]
    plain, odd = tokenizers.WordPiece(vocab, True), tokenizers.WordPiece(vocab, False, False, False, [entity])
    assert [tokenizers.fingerprint(tokenizer) for tokenizer in (plain, odd)] == ["94a8b1d65516e9bd", "54b075567abb9e2f"]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"the\nfox\n", "wordpiece", r"lacks \[PAD\], \[UNK\]"),
        (b"\xff\xfe\x00", "wordpiece", "not UTF-8"),
        (b"not a model", "sentencepiece", "not a SentencePiece model"),
    ],
)
def test_bad_vocabulary_files_are_named(tmp_path, content, kind, message):
    file = tmp_path / "vocab.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        tokenizers.load(str(file), TokenizerConfig(kind=kind))
    assert str(file) in str(error.value)


SPECIAL = "\n".join(tokenizers.SPECIAL)


@pytest.mark.parametrize(
    "content",
    [
        f"{SPECIAL}\nthe\nfox",
        f"{SPECIAL}\nthe\n\n\nfox\n",
        f"\n\n{SPECIAL}\nthe\nfox\n\n\n",
        f"{SPECIAL}\nfox\nthe\n##es\nfox\nthe\nfox\n",
        f"{SPECIAL}\nthe \nfox\u3000\n",
        f"{SPECIAL}\nthe\n\u2028\nfox\n",
        f"{SPECIAL}\nthe\nfox\n".replace("\n", "\r\n"),
    ],
)
def test_odd_vocabulary_files_give_the_ids_of_transformers(tmp_path, content):
    from transformers import BertTokenizer

    file, texts = tmp_path / "vocab.txt", ["the fox foxes", "The  FOX \u2028 fox"]
    file.write_bytes(content.encode())
    tokenizer, theirs = tokenizers.load(str(file), TokenizerConfig()), BertTokenizer(str(file))
    assert tokenizer.encode(texts) == theirs(texts, add_special_tokens=False)["input_ids"]
    assert list(tokenizer.special_ids.values()) == theirs.convert_tokens_to_ids(list(tokenizers.SPECIAL))
    assert tokenizers.from_dict(tokenizer.to_dict()).encode(texts) == tokenizer.encode(texts)


def test_a_byte_order_mark_is_no_part_of_the_first_piece(tmp_path):
    (tmp_path / "vocab.txt").write_text(f"{SPECIAL}\nfox", encoding="utf-8-sig")
    assert tokenizers.load(str(tmp_path / "vocab.txt"), TokenizerConfig()).special_ids["[PAD]"] == 0


def test_vocabulary_larger_than_the_corpus_gives():
    with pytest.raises(InputError, match="tokenizer.vocab_size"):
        tokenizers.train(["tiny text"], TokenizerConfig(vocab_size=10_000))
