"""Named entities and semantic roles: files, windows, scores against seqeval and srl-eval.pl, what is handed in."""

import gzip
import random

import numpy as np
import pytest

from bert_jax.config import InputError, TaskConfig, TokenizerConfig
from bert_jax.data import tokenizers
from bert_jax.models.heads.base import NO_LABEL
from bert_jax.tasks import columns, tagging

WORDS = [*"abcdefghij", "##x", "say", "##s", ".", "!"]
TOKENIZER = tokenizers.WordPiece([*tokenizers.SPECIAL, *WORDS], True)
TYPES = ("PER", "LOC", "A-B")

CONLL_2003 = """-DOCSTART- -X- -X- O

a NN I-NP I-PER
bx NN I-NP I-PER
says VB I-VP O
c NN I-NP B-PER

d NN I-NP I-LOC

-DOCSTART- -X- -X- O

e NN I-NP O
f NN I-NP I-ORG
"""


def ner(tmp_path, train: str = CONLL_2003, dev: str | None = None, **changes) -> tagging.Tagging:
    for name, text in (("train", train), ("dev", dev)):
        if text is not None:
            (tmp_path / f"{name}.conll").write_text(text, encoding="utf-8")
    return tagging.from_config(TaskConfig(name="ner", folder=str(tmp_path), **changes))


def pieces(ids: list[int]) -> str:
    return " ".join(TOKENIZER.pieces()[i] for i in ids)


def predicted(task, examples, features) -> list[tagging.Tagged]:
    """What comes of logits that are sure of the gold tags, and of O elsewhere."""
    logits = []
    for feature in features:
        scored = np.zeros((len(feature.input_ids), len(task.head.labels)))
        scored[np.arange(len(scored)), np.maximum(feature.label, 0)] = 5.0
        logits.append(scored)
    return task.predict(examples, features, logits)


# Files


def test_a_file_of_conll_2003(tmp_path):
    task = ner(tmp_path, dev="x NN I-NP B-LOC\n")
    assert task.head.kind == "token_classification"
    assert task.head.labels == ("O", "B-PER", "I-LOC", "I-ORG", "I-PER")
    assert [example.words for example in task.read("train")] == [["a", "bx", "says", "c"], ["d"], ["e", "f"]]
    assert task.read("train")[0].tags == ["I-PER", "I-PER", "O", "B-PER"]
    assert [example.where.rsplit()[-1] for example in task.read("train")] == ["3", "8", "12"]
    assert (task.dev_splits, task.test_splits) == (("dev",), ())
    # As in IOB1, where B- is rare: the label is no class of the model, but counts in the scores.
    (feature,) = task.features(task.read("dev"), TOKENIZER, 16, training=False)
    assert feature.label == [NO_LABEL] * 3


def test_tabs_comments_odd_tokens_and_a_model_with_labels(tmp_path):
    text = "# text = a b\n\u00a0a\tO\n\tB-LOC\n#\tO\n\t\na\u2028b\tI-LOC\r\nnew york\tO\n\n\n"
    task = ner(tmp_path, train=text)
    assert [example.words for example in task.read("train")] == [["\u00a0a", "", "#"], ["a\u2028b", "new york"]]
    (tmp_path / "test.txt").write_text("a\nb\n")
    trained = tagging.from_config(TaskConfig(name="ner", test=str(tmp_path / "test.txt")), labels=("O", "B-X"))
    assert trained.head.labels == ("O", "B-X")
    examples = trained.read("test")
    features = trained.features(examples, TOKENIZER, 16, training=False)
    assert (examples[0].tags, features[0].label, features[0].positions) == (None, None, [1, 2])
    tagged = trained.predict(examples, features, [np.array([[0, 0], [1, 2], [2, 1], [0, 9]])])
    assert tagged[0].tags == ["B-X", "O"]
    np.testing.assert_allclose(tagged[0].probabilities, [1 / (1 + np.exp(-1))] * 2)
    assert trained.metrics(examples, tagged) == {}
    row = trained.rows(examples, tagged)[0]
    assert (row["text"], row["gold"], row["predicted"], row["right"]) == ("a b", None, "[a X] b", None)
    (file,) = trained.submit(tmp_path / "out", "test", examples, tagged)
    assert file.read_text() == "a B-X\nb O\n\n"


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("a O\nb\n", None, r"train.conll, line 2: columns separated by spaces: 1, but 2"),
        ("a\tO\n\nb\tx\tO\n", None, r"train.conll, line 3: columns separated by tabs: 3, but 2"),
        ("a O\nb PER\n", None, r"train.conll, line 2: .*'PER' is neither O nor B-, I-, E- or S-"),
        ("a O\nb B-\n", None, r"train.conll, line 2: .*'B-'"),
        ("a\nb\n", None, r"train.conll, line 1: has a token and no tag"),
        ("", None, r"train.conll: holds no sentence"),
        ("-DOCSTART- -X- O\n\n", None, r"train.conll: holds no sentence"),
        ("a O\nb B-PER\n", "a O\n\nb O\nc I-LOC\n", r"dev.conll, line 4: the tag 'I-LOC' .* there are PER"),
        ("a O\n", None, r"task.dev: names no file, and task.folder .* holds none of eng.testa"),
    ],
)
def test_malformed_files_are_named(tmp_path, train, dev, message):
    task = ner(tmp_path, train, dev)
    with pytest.raises(InputError, match=message) as error:
        task.read("train"), task.read("dev")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    for name, content, message in (
        ("latin", b"a O\nb\xfc O\n", ", line 2: not UTF-8"),
        ("cut.gz", b"\x1f\x8b\x08", "not a whole compressed"),
        ("damaged.gz", gzip.compress(b"a O\n\n" * 100, mtime=0)[:12] + b"\xff" * 20, "not a whole compressed"),
        ("none", None, "no such file"),
    ):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.*{message}"):
            tagging.from_config(TaskConfig(name="ner", train=str(tmp_path / name))).read("train")


# Features


def test_the_first_piece_carries_the_label(tmp_path):
    task = ner(tmp_path)
    feature = task.features(task.read("train"), TOKENIZER, 16, training=True)[0]
    assert pieces(feature.input_ids) == "[CLS] a b ##x say ##s c [SEP]"
    labels = [task.head.labels[i] if i != NO_LABEL else "-" for i in feature.label]
    assert labels == ["-", "I-PER", "I-PER", "-", "O", "-", "B-PER", "-"]
    assert feature.token_type_ids == [0] * 8


def test_a_word_without_pieces_is_an_unknown_one(tmp_path):
    task = ner(tmp_path, train="a\tO\n\u200d\tB-PER\n\tO\n[SEP]\tO\n")
    (feature,) = task.features(task.read("train"), TOKENIZER, 16, training=True)
    assert pieces(feature.input_ids) == "[CLS] a [UNK] [UNK] [UNK] [UNK] [UNK] [SEP]"
    assert feature.positions == [1, 2, 3, 4]
    assert feature.input_ids.count(TOKENIZER.special_ids["[SEP]"]) == 1


def test_context_of_the_document(tmp_path):
    task = ner(tmp_path, document_context=True)
    features = task.features(task.read("train"), TOKENIZER, 32, training=True)
    assert [pieces(feature.input_ids) for feature in features] == [
        "[CLS] a b ##x say ##s c d [SEP]",
        "[CLS] a b ##x say ##s c d [SEP]",
        "[CLS] e f [SEP]",
    ]
    assert [feature.positions for feature in features] == [[1, 2, 4, 6], [7], [1, 2]]
    assert [label == NO_LABEL for label in features[1].label] == [True] * 7 + [False, True]
    # Whole words only, on both sides, as many as fit.
    features = task.features(task.read("train"), TOKENIZER, 6, training=True)
    assert pieces(features[-2].input_ids) == "[CLS] say ##s c d [SEP]"
    with pytest.raises(InputError, match="no -DOCSTART- line"):
        ner(tmp_path, train="a O\n", document_context=True).read("train")


@pytest.mark.parametrize("document_context", [False, True])
@pytest.mark.parametrize("length", [8, 13, 32])
def test_each_word_is_predicted_once_however_long_the_sentence(tmp_path, document_context, length):
    rng = random.Random(length)
    lines = ["-DOCSTART- O"]
    for size in (1, 5, 40, 3, 90, 2):
        words = [rng.choice(["a", "bx", "says", "dxxxxx", "!" * 40]) for _ in range(size)]
        lines += ["", *(f"{word} {rng.choice(['O', 'B-PER', 'I-PER', 'B-LOC'])}" for word in words)]
    task = ner(tmp_path, "\n".join(lines), document_context=document_context)
    examples = task.read("train")
    features = task.features(examples, TOKENIZER, length, training=True)
    words = [[] for _ in examples]
    for feature in features:
        assert len(feature.input_ids) == len(feature.token_type_ids) == len(feature.label) <= length
        assert [i for i, label in enumerate(feature.label) if label != NO_LABEL] == feature.positions
        for k, place in enumerate(feature.positions):
            word = examples[feature.example].words[feature.first + k]
            assert feature.input_ids[place] == TOKENIZER.encode([word])[0][0]
            words[feature.example].append(feature.first + k)
    assert words == [list(range(len(example.words))) for example in examples]
    tagged = predicted(task, examples, features)
    assert [one.tags for one in tagged] == [example.tags for example in examples]


def test_parts_of_a_long_sentence_are_read_with_what_stands_around(tmp_path):
    letters = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
    task = ner(tmp_path, "".join(f"{word} O\n" for word in letters))
    features = task.features(task.read("train"), TOKENIZER, 8, training=True)
    assert [pieces(feature.input_ids) for feature in features] == [
        *("[CLS] a b c d e f [SEP]", "[CLS] c d e f g h [SEP]", "[CLS] e f g h i j [SEP]", "[CLS] e f g h i j [SEP]"),
    ]
    assert [feature.positions for feature in features] == [[1, 2, 3], [2, 3, 4], [3, 4, 5], [6]]


# Scores


def test_what_comes_of_a_dev_file(tmp_path):
    task = ner(tmp_path, dev=CONLL_2003)
    examples = task.read("dev")
    tagged = predicted(task, examples, task.features(examples, TOKENIZER, 16, training=False))
    assert {task.metrics(examples, tagged)[name] for name in ("f1", "f1/LOC", "accuracy")} == {100}
    tagged[0].tags[1] = "O"
    found = task.metrics(examples, tagged)
    assert found["precision"] == found["recall"] == found["f1"] == 75.0
    assert (found["f1/PER"], found["f1/ORG"], found["accuracy"]) == (50.0, 100.0, pytest.approx(100 * 6 / 7))
    row = task.rows(examples, tagged)[0]
    assert (row["text"], row["right"]) == ("a bx says c", False)
    assert (row["gold"], row["predicted"]) == ("[a bx PER] says [c PER]", "[a PER] bx says [c PER]")
    assert row["confidence"] == pytest.approx(np.exp(5) / (np.exp(5) + 4))
    (file,) = task.submit(tmp_path / "out", "dev", examples, tagged)
    assert file.name == "dev.conll"
    assert file.read_text().split("\n")[:6] == [
        *("-DOCSTART- -X- -X- O O", "", "a NN I-NP I-PER I-PER", "bx NN I-NP I-PER O"),
        *("says VB I-VP O O", "c NN I-NP B-PER B-PER"),
    ]
    again = columns.read_tagged(file, labelled=True)
    assert [sentence.column(-1) for sentence in again if not sentence.starts_document] == [t.tags for t in tagged]


# Real files


@pytest.mark.parametrize(
    ("file", "counts", "entities"),
    [
        ("wnut17/train.conll", (3394, 62730), 1975),
        ("wnut17/dev.conll", (1009, 15733), 836),
        ("btc/h.conll", (2001, 29480), 3368),
    ],
)
def test_real_files(real_data, tmp_path, file, counts, entities):
    """Sentences, tokens and entities (of WNUT-17, those of its paper); labels where transformers has the words."""
    from transformers import BertTokenizer

    vocab = str(real_data / "vocab/bert-base-cased-vocab.txt")
    tokenizer = tokenizers.load(vocab, TokenizerConfig(lowercase=False))
    theirs = BertTokenizer(vocab, do_lower_case=False)
    task = tagging.from_config(TaskConfig(name="ner", train=str(real_data / "ner" / file)))
    examples = task.read("train")
    assert (len(examples), sum(len(example.words) for example in examples)) == counts
    assert sum(tag.startswith("B-") for example in examples for tag in example.tags) == entities
    features = task.features(examples, tokenizer, 128, training=True)
    special = set(tokenizer.special_ids.values())
    compared = 0
    for example, feature in zip(examples, features, strict=True):
        encoded = theirs(example.words, is_split_into_words=True)
        ids = encoded.word_ids()
        firsts = [i for i, word in enumerate(ids) if word is not None and word != ids[i - 1]]
        if len(firsts) == len(example.words) and not special & set(encoded["input_ids"][1:-1]):
            assert feature.input_ids == encoded["input_ids"]
            assert [i for i, label in enumerate(feature.label) if label != NO_LABEL] == firsts == feature.positions
            compared += 1
    assert compared > 0.8 * len(examples)
    tagged = predicted(task, examples, features)
    assert task.metrics(examples, tagged)["f1"] == 100
