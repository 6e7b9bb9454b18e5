"""Inputs of tokenizers that put texts together otherwise than BERT's, in every place that makes some."""

import numpy as np
import pytest
from tokenizers import processors
from transformers import AutoTokenizer, XLMRobertaTokenizer

from bert_jax.config import ExamplesConfig, InputError, TaskConfig, TokenizerConfig
from bert_jax.data import tokenizer_folders, words
from bert_jax.data.layouts import Layout, from_post_processor
from bert_jax.data.prepare import prepare
from bert_jax.data.tokenizers import WordPiece
from bert_jax.tasks import multiple_choice, squad, squad_files, tagging
from bert_jax.tasks.classification import model_input

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz.<>/"


@pytest.fixture
def xlmr(tmp_path):
    """A folder of the kind of multilingual MiniLM, as transformers writes it, and AutoTokenizer's reading of it."""
    pieces = [*(f"▁{word}" for word in ["the", "quick", "fox", "who", "a", "dog"]), "▁", *LETTERS]
    scores = [*((name, 0.0) for name in SPECIAL), *((piece, -len(LETTERS) / len(piece)) for piece in pieces)]
    XLMRobertaTokenizer(vocab=[*scores, ("<mask>", 0.0)]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    return tokenizer_folders.read(tmp_path), AutoTokenizer.from_pretrained(tmp_path)


def test_a_bert_with_the_pieces_of_xlmr(xlmr):
    tokenizer, theirs = xlmr
    texts = ["The quick fox", "who  jumps", "a"]
    parts = tokenizer.encode(texts)
    for i in range(3):
        assert model_input(tokenizer, (parts[i],), 99)[0] == theirs(texts[i])["input_ids"]
        pair = theirs(texts[i], texts[i - 1], truncation=True, max_length=11)["input_ids"]
        assert model_input(tokenizer, (parts[i], parts[i - 1]), 11) == (pair, [0] * len(pair))
    masked = "the [MASK] fox who[MASK]"
    assert tokenizer.encode_masked(masked) == theirs(masked.replace("[MASK]", "<mask>"))["input_ids"][1:-1]
    assert [tokenizer.pieces()[i] for i in tokenizer.special_ids.values()] == [
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "<mask>",
    ]


def test_special_tokens_spelled_in_a_text_are_text(xlmr):
    tokenizer, _ = xlmr
    ids = tokenizer.encode(["the <s> </s><mask> <pad> <unk>"])[0]
    assert not {tokenizer.pieces()[i] for i in ids} & {"<s>", "</s>", "<mask>", "<pad>"}
    assert tokenizer.decode(ids).startswith("the <s> </s>")


def test_windows_of_squad(xlmr):
    tokenizer, theirs = xlmr
    question, context = "who a dog", "the quick fox jumps over a lazy dog " * 5
    task = squad.Squad(TaskConfig("squad", query_length=9, stride=20))
    windows = task.features([squad_files.example(question, context)], tokenizer, 50, training=False)
    kept = tokenizer.encode([question])[0][:9]
    cut = dict(truncation="only_second", max_length=50, return_overflowing_tokens=True)
    size = 50 - len(kept) - tokenizer.layout.special_tokens(2)
    expected = theirs(theirs.decode(kept), context, stride=size - 20, **cut)["input_ids"]
    assert [window.input_ids for window in windows] == expected
    assert all(window.token_type_ids == [0] * len(window.input_ids) for window in windows)
    first = windows[0]
    assert first.input_ids[first.offset : -1] == first.document.ids[: len(first.input_ids) - 1 - first.offset]


def test_tags_and_choices(xlmr):
    tokenizer, theirs = xlmr
    example = tagging.Example(["the", "fox"], None, "", 0, ["the", "fox"])
    (window,) = tagging.from_config(TaskConfig("ner"), ("O", "B-X")).features([example], tokenizer, 20, training=False)
    assert window.input_ids == theirs("the fox")["input_ids"] and window.positions == [1, 2]
    choices = multiple_choice.Example("the fox", ["a dog", "who"], None, "0")
    (feature,) = multiple_choice.MultipleChoice(TaskConfig("swag")).features([choices], tokenizer, 20, training=False)
    assert feature.input_ids == theirs(["the fox"] * 2, ["a dog", "who"])["input_ids"]
    predicate = tagging.Example(["the", "fox"], None, "", 0, ["the", "fox"], predicate=1)
    with pytest.raises(InputError, match="marks the predicate by a token type"):
        tagging.from_config(TaskConfig("srl"), ("O", "B-V")).features([predicate], tokenizer, 20, training=False)


def test_pretraining_examples(xlmr, tmp_path, config):
    import dataclasses

    tokenizer, theirs = xlmr
    with pytest.raises(InputError, match="--examples.format full_sentences or packed"):
        prepare(config, tmp_path / "pairs", tokenizer=tokenizer)
    config = dataclasses.replace(config, examples=ExamplesConfig(format="packed"), tokenizer=TokenizerConfig())
    examples = prepare(config, tmp_path / "packed", tokenizer=tokenizer)
    row = examples.split("train", 32).read(np.array([0]))[0][3:].tolist()
    assert row[0] == theirs.cls_token_id and set(row) & {theirs.sep_token_id}
    begins = [
        piece
        for piece, continues in zip(tokenizer.pieces(), words.continues_word(tokenizer), strict=True)
        if not continues
    ]
    assert begins == [piece for piece in tokenizer.pieces() if piece.startswith("▁")]


def test_the_predicate_is_marked_by_its_type_as_before():
    tokenizer = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"], True)
    example = tagging.Example(["a", "b", "c"], None, "", 0, ["a", "b", "c"], predicate=1)
    (window,) = tagging.from_config(TaskConfig("srl"), ("O", "B-V")).features([example], tokenizer, 20, training=False)
    assert (window.input_ids, window.token_type_ids) == ([2, 5, 6, 7, 3, 6, 3], [0, 0, 1, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("single", "pair", "message"),
    [
        ("$A", "$A $B", "makes 'A' of a text"),
        ("$A s", "$A s $B s", "makes 'A special' of a text"),
        ("c:1 $A:1 s:1", "c $A s $B s", "token types .1, 1, 1"),
        ("c $A s", "$A $B:1", "doesn't put two texts together"),
        ("c $A s", "c $B s $A s", "doesn't put two texts together"),
        ("c $A s", "c $A s $B c", "doesn't put two texts together"),
    ],
)
def test_layouts_that_are_not_read(single, pair, message):
    special = [("c", 7), ("s", 8)]
    processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    with pytest.raises(InputError, match=message):
        from_post_processor(processor).joined(([1], [2]))
    if "two" in message:
        assert from_post_processor(processor).joined(([1],)) == ([7, 1, 8], [0, 0, 0])


def test_token_types_that_versions_of_transformers_give_differently():
    layout = from_post_processor(processors.BertProcessing(("s", 8), ("c", 7)), token_types=None)
    with pytest.raises(InputError, match="add it: "):
        layout.joined(([1], [2]))
    assert from_post_processor(processors.BertProcessing(("s", 8), ("c", 7))) == Layout(7, 8, (8,), (0, 0, 0, 1, 1))
