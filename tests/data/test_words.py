"""Whole words where spaces don't part them: a segmenter's words against literals, and masks that keep to them."""

import dataclasses
import json
import re

import numpy as np
import pytest
from conftest import small_config

from bert_jax.config import ExamplesConfig, InputError, MaskingConfig, Phase, TokenizerConfig
from bert_jax.data import pipeline, tokenizers, words
from bert_jax.data.prepare import prepare

CHINESE = "中国的首都是北京大学中心。"
VOCABULARY = [*tokenizers.SPECIAL, *dict.fromkeys(CHINESE), *"abcdefg", *(f"##{c}" for c in "abcdefg"), ".", "##1", "1"]
BIT = 1 << 15


def in_pairs(text: str) -> list[str]:
    """A segmenter: words of two characters, spaces kept."""
    return [text[i : i + 2] for i in range(0, len(text), 2)]


def no_spaces(text: str) -> list[str]:
    return text.split()


def changing(text: str) -> list[str]:
    return [text, "x"]


def failing(text: str) -> list[str]:
    return 1 / 0


def marked(tokenizer, text: str, segmenter: str) -> list[tuple[str, bool]]:
    (ids,) = words.encoder(tokenizer, f"test_words:{segmenter}", BIT)([text])
    assert [i % BIT for i in ids] == tokenizer.encode([text])[0]
    return [(tokenizer.pieces()[i % BIT], i >= BIT) for i in ids]


def pieces(text: str) -> list[tuple[str, bool]]:
    """Of "a _b": a begins a word and b continues it."""
    return [(piece.removeprefix("_"), piece.startswith("_")) for piece in text.split()]


def test_words_of_a_segmenter_on_wordpiece():
    tokenizer = tokenizers.WordPiece(VOCABULARY, True)
    assert marked(tokenizer, "中国的首都", "in_pairs") == pieces("中 _国 的 _首 都")
    assert marked(tokenizer, "中 国 的首", "in_pairs") == pieces("中 国 的 _首")
    assert marked(tokenizer, "abc1的x北", "in_pairs") == pieces("a _##b ##c _##1 的 _[UNK] 北")
    assert marked(tokenizer, "ab. 中国", "no_spaces") == pieces("a _##b _. 中 _国")
    assert marked(tokenizer, "", "in_pairs") == []
    # The accent is a character of the text, though no token comes of it.
    assert marked(tokenizer, "e\u0301a中中", "in_pairs") == pieces("e ##a _中 中")


@pytest.fixture(scope="module")
def sentencepiece():
    lines = [f"{a}{b} {b}{a}。" for a in CHINESE for b in CHINESE] + ["the cab fed a dead bee"] * 20
    return tokenizers.train(lines, TokenizerConfig("sentencepiece", vocab_size=60))


def test_words_of_a_segmenter_on_sentencepiece(sentencepiece):
    for text in ("中国的首都", " 中国  的", "the cab 中国", "①北京"):
        assert "".join(piece for piece, _ in marked(sentencepiece, text, "in_pairs"))
    found = marked(sentencepiece, "中国的首都", "in_pairs")
    starts = np.cumsum([0, *(len(piece.lstrip("▁")) for piece, _ in found)])[:-1]
    # The ▁ before the text counts to its first word.
    assert [continues for _, continues in found] == [
        False,
        *(a // 2 == b // 2 for a, b in zip(starts, starts[1:], strict=False)),
    ]


def test_without_a_segmenter_an_ideograph_is_a_word(sentencepiece):
    wordpiece = tokenizers.WordPiece([*VOCABULARY, "##中"], True)
    for tokenizer in (wordpiece, sentencepiece):
        continues = dict(zip(tokenizer.pieces(), words.continues_word(tokenizer), strict=True))
        assert not any(continues[piece] for piece in continues if re.search("[一-龥]", piece))
    assert {piece for piece, c in zip(wordpiece.pieces(), words.continues_word(wordpiece), strict=True) if c} == {
        piece for piece in VOCABULARY if piece.startswith("##")
    }
    continues = dict(zip(sentencepiece.pieces(), words.continues_word(sentencepiece), strict=True))
    assert all(continues[p] == (p[0] != "▁") for p in sentencepiece.pieces() if re.fullmatch("▁?[a-z]+", p))


@pytest.fixture
def chinese(tmp_path):
    """A config of a corpus of Chinese, in words of two characters that tell where they begin."""
    rng = np.random.default_rng(0)
    pairs = [a + b for a in "中国的首" for b in "都是北京"]
    documents = ["\n".join("".join(rng.choice(pairs, 12)) + "。" for _ in range(4)) for _ in range(60)]
    (tmp_path / "zh.txt").write_text("\n\n".join(documents), encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return small_config(
        tmp_path / "zh.txt",
        tokenizer=TokenizerConfig(path=str(tmp_path / "vocab.txt")),
        examples=ExamplesConfig("packed", word_segmenter="test_words:in_pairs"),
        masking=MaskingConfig(whole_word=True),
        phases=(Phase(sequence_length=64, batch_size=16, steps=30, max_predictions=20),),
    )


def test_words_come_through_to_the_masks(chinese, tmp_path):
    examples = prepare(chinese, tmp_path / "examples")
    assert examples.manifest["record"] == (
        "uint16: label, second segment's start, length, ids, 32768 added to those that continue a word"
    )
    plain = dataclasses.replace(chinese, examples=ExamplesConfig("packed"))
    assert prepare(plain, tmp_path / "plain").manifest["unigram_counts"] == examples.manifest["unigram_counts"]
    pieces = np.array(examples.tokenizer.pieces())
    predicted = tokens = 0
    for batch in pipeline.batches(examples, chinese):
        assert batch["input_ids"].max() < len(pieces)
        tokens += batch["attention_mask"].sum()
        for row, weights, ids in zip(
            batch["masked_lm_positions"], batch["masked_lm_weights"], batch["masked_lm_ids"], strict=True
        ):
            used = weights > 0
            predicted += used.sum()
            chosen = dict(zip(row[used].tolist(), pieces[ids[used]], strict=True))
            for place, piece in chosen.items():
                assert piece not in "中国的首" or chosen.get(place + 1, "") in tuple("都是北京")
                assert piece not in "都是北京" or chosen.get(place - 1, "") in tuple("中国的首")
    assert 0.13 < predicted / tokens < 0.16


@pytest.mark.parametrize(
    ("segmenter", "message"),
    [
        ("no_such_module:cut", "can't be imported.*No module named.*pip install"),
        ("test_words:cut", "can't be imported.*has no attribute 'cut'"),
        ("test_words:BIT", "isn't a function"),
        ("test_words:changing", "changes the text .*choose another function"),
        ("test_words:failing", "failed with ZeroDivisionError: division by zero on .*; correct it"),
    ],
)
def test_a_segmenter_that_is_no_good_is_named(chinese, tmp_path, segmenter, message):
    before = sorted(tmp_path.iterdir())
    config = dataclasses.replace(chinese, examples=ExamplesConfig(word_segmenter=segmenter))
    with pytest.raises(InputError, match=f"examples.word_segmenter: .*{message}") as error:
        prepare(config, tmp_path / "examples")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_ids_and_words_of_real_chinese(real_data):
    config = TokenizerConfig(path=str(real_data / "vocab/bert-base-chinese-vocab.txt"))
    tokenizer = tokenizers.load(config.path, config)
    lines = (real_data / "corpus/wiki_zh.txt").read_text(encoding="utf-8").split("\n")[:2000]
    encoded = words.encoder(tokenizer, "test_words:in_pairs", BIT)(lines)
    assert [[i % BIT for i in ids] for ids in encoded] == tokenizer.encode(lines)
    share = np.mean([i >= BIT for ids in encoded for i in ids])
    assert 0.4 < share < 0.6


def test_manifest_says_nothing_of_words_where_there_are_none(examples):
    assert examples.manifest["record"] == "uint16: label, second segment's start, length, ids"
    assert json.dumps(examples.manifest["config"]["examples"]["word_segmenter"]) == "null"
