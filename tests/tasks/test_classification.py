"""Classification and regression: tables of one's own, features, scores and submissions."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import InputError, TaskConfig
from bert_jax.data.tokenizers import SPECIAL, WordPiece
from bert_jax.tasks.classification import Classification, Example, Prediction, model_input
from bert_jax.tasks.tables import read_table

TABLES = {
    "a.csv": 'text,label,n\n"one, ""two""\nthree",b,7\nfour,a,8\n',
    "a.tsv": 'text\tlabel\tn\n"one, two\tb\t7\n\nfour\ta\t8\n',
    "a.jsonl": '{"text": "one", "label": "b", "n": 7}\n\n{"n": 8, "label": "a", "text": "four"}\n',
}
FIRST = {"a.csv": 'one, "two"\nthree', "a.tsv": '"one, two', "a.jsonl": "one"}


@pytest.mark.parametrize("name", TABLES)
def test_own_tables_by_their_suffix(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"\xef\xbb\xbf" + TABLES[name].replace("\n", "\r\n").encode())
    task = Classification(TaskConfig(train=str(file), test=str(file), id_column="n"))
    expected = [Example("7", (FIRST[name].replace("\n", "\r\n"),), "b"), Example("8", ("four",), "a")]
    assert task.read("train") == expected
    assert task.head.labels == ("a", "b")
    assert (task.dev_splits, task.test_splits) == ((), ("test",))


def test_own_pairs_without_a_header_and_without_labels(tmp_path):
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text("a\tb\t1\nc\td\t0\n")
    test.write_text("e\tf\n")
    columns = dict(text_column="1", pair_column="2", label_column="3")
    task = Classification(TaskConfig(train=str(train), test=str(test), **columns))
    assert task.read("train")[1] == Example("1", ("c", "d"), "0")
    (example,) = task.read("test")
    assert example == Example("0", ("e", "f"), None)
    assert task.metrics([example], [Prediction("0", 0.9)]) == {}
    row = dict(id="0", text="e", pair="f", gold=None, predicted="0", right=None, confidence=0.9)
    assert task.rows([example], [Prediction("0", 0.9)]) == [row]
    assert task.submit(tmp_path, "test", [example], [Prediction("0", 0.9)]) == [tmp_path / "test.csv"]
    assert (tmp_path / "test.csv").read_text() == "index,prediction\n0,0\n"


def test_scores_and_rows_of_own_classification_and_regression(tmp_path):
    task = Classification(TaskConfig(), labels=("no", "yes", "maybe"))
    examples = [Example(str(i), ("x",), label) for i, label in enumerate(["yes", "yes", "no", "maybe"])]
    logits = [np.array(x, np.float32) for x in ([0, 2, 0], [0, 1, 3], [9, 0, 0], [0, 0, 1000])]
    predictions = task.predict(examples, [], logits)
    assert [p.label for p in predictions] == ["yes", "maybe", "no", "maybe"]
    assert predictions[0].confidence == pytest.approx(np.exp(2) / (np.exp(2) + 2))
    scores = task.metrics(examples, predictions)
    assert scores == pytest.approx({"accuracy": 75, "macro_f1": 100 * (2 / 3 + 1 + 2 / 3) / 3})
    assert [row["right"] for row in task.rows(examples, predictions)] == [True, False, True, True]
    (tmp_path / "r.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "2.5"}\n')
    task = Classification(TaskConfig(name="regression", train=str(tmp_path / "r.jsonl")))
    examples = task.read("train")
    assert (task.head.labels, [e.label for e in examples]) == (("label",), [1.0, 2.5])
    predictions = task.predict(examples, [], [np.array([2.0]), np.array([3.0])])
    assert task.metrics(examples, predictions) == pytest.approx({"mse": 0.625, "pearson": 100, "spearman": 100})
    assert [row["error"] for row in task.rows(examples, predictions)] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "text\tlabel\nx\ta\ny\tb\tc\n", r"a\.tsv, line 3: has 3 columns, the first line has 2"),
        ("a.tsv", "text\tlabel\nx\ta\n\ty\n", r"a\.tsv, line 3: text is empty; .*leave the row out"),
        ("a.tsv", "text\tlabel\nx\t \n", r"a\.tsv, line 2: label is empty"),
        (
            "a.tsv",
            "body\tlabel\nx\ta\n",
            r"a\.tsv, line 1: has no column 'text', only body, label; .*--task.text-column",
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n{"text": "x"}\n',
            r"a\.jsonl, line 2: has no 'label', only text; add it",
        ),
        ("a.tsv", "text\ttext\nx\ta\n", r"a\.tsv, line 1: two columns are called 'text'"),
        ("a.tsv", "text\tlabel\n", r"a\.tsv: holds no rows"),
        ("a.tsv", "", r"a\.tsv: holds no rows"),
        ("a.tsv", "text\tlabel\nx\ta\ny\ta\n", r"a\.tsv: has the one label 'a'"),
        ("a.tsv", b"text\tlabel\nx\ta\ny\xff\tb\n", r"a\.tsv, line 3: not UTF-8"),
        ("a.csv", 'text,label\nx,a\n"y,b\n', r"a\.csv, line 3: not CSV"),
        ("a.csv", 'text,label\nx,a\n"y" z,b\n', r"a\.csv, line 3: not CSV"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "x", "la', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"text": "\\ud83d", "label": 1}\n', r"a\.jsonl, line 1: not JSON that is read .*half a character"),
        ("a.jsonl", '{"text": ' + "[" * 100_000, r"a\.jsonl, line 1: not JSON that is read .*in each other"),
        ("a.jsonl", '["x", "a"]\n', r"a\.jsonl, line 1: not an object"),
        ("a.jsonl", '{"text": 3, "label": 1}\n{"text": "x", "label": 2}', r"a\.jsonl, line 1: text is 3, must be text"),
        ("a.jsonl", '{"text": "x", "label": null}\n', r"a\.jsonl, line 1: label is null"),
        ("missing/a.csv", None, r"a\.csv: no such file"),
    ],
)
def test_malformed_tables_are_named_with_file_and_line(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    task = Classification(TaskConfig(train=str(tmp_path / name)))
    with pytest.raises(InputError, match=message) as error:
        task.read("train")
    assert "\n" not in str(error.value)


def test_labels_that_the_training_file_or_the_task_lacks(tmp_path):
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("text,label\nx,a\ny,b\n")
    dev.write_text("text,label\nx,a\ny,c\n")
    config = TaskConfig(train=str(train), dev=str(dev))
    with pytest.raises(
        InputError, match=r"dev\.csv, line 3: label 'c' in column label is none of the training set's: a, b"
    ):
        Classification(config).read("dev")
    with pytest.raises(InputError, match="none of the model's: c, d"):
        Classification(config, labels=("c", "d")).read("dev")
    with pytest.raises(InputError, match="line 2: label is 'a', must be a number"):
        Classification(TaskConfig(name="regression", train=str(train))).read("train")
    with pytest.raises(InputError, match="task.test: names no file"):
        Classification(config).read("test")
    rte = tmp_path / "train.tsv"
    rte.write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\ta\tb\tneutral\n2\ta\n")
    task = Classification(TaskConfig(name="rte", folder=str(tmp_path)))
    with pytest.raises(
        InputError, match=r"train\.tsv, line 3: label 'neutral' in column label is none of the task's: entailment"
    ):
        task.read("train")
    rte.write_text("index\tsentence1\tsentence2\tlabel\n0\ta\n")
    with pytest.raises(InputError, match=r"train\.tsv, line 2: has no 'sentence2', only index, sentence1"):
        task.read("train")


def test_features_of_texts_pairs_and_labels():
    tokenizer = WordPiece([*SPECIAL, "a", "b"], lowercase=True)
    task = Classification(TaskConfig(), labels=("no", "yes"))
    one, two, empty = (Example("", texts, label) for texts, label in ((("a b",), "yes"), (("b",), None), (("",), "no")))
    features = task.features([one, two, empty], tokenizer, length=8, training=True)
    assert [(f.input_ids, f.token_type_ids, f.label, f.example) for f in features] == [
        ([2, 5, 6, 3], [0, 0, 0, 0], 1, 0),
        ([2, 6, 3], [0, 0, 0], None, 1),
        ([2, 3], [0, 0], 0, 2),
    ]
    assert task.features([], tokenizer, length=8, training=True) == []
    assert model_input(tokenizer, ([5] * 9, [6] * 2), 8) == ([2, 5, 5, 5, 3, 6, 6, 3], [0, 0, 0, 0, 0, 1, 1, 1])
    assert model_input(tokenizer, ([5] * 9,), 5) == ([2, 5, 5, 5, 3], [0] * 5)
    (pair,) = task.features([Example("", ("a", ""), None)], tokenizer, length=8, training=False)
    assert (pair.input_ids, pair.token_type_ids) == ([2, 5, 3, 3], [0, 0, 0, 1])


def auto_tokenizer(vocab: Path, folder: Path, lowercase: bool):
    import transformers

    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "vocab.txt").write_bytes(vocab.read_bytes())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase})
    )
    return transformers.AutoTokenizer.from_pretrained(folder)


def assert_same_ids(task, examples, vocab, folder, lowercase, lengths=(128, 127, 32, 13)):
    tokenizer = WordPiece(vocab.read_text(encoding="utf-8").split("\n")[:-1], lowercase)
    theirs = auto_tokenizer(vocab, folder, lowercase)
    sides = [list(texts) for texts in zip(*(e.texts for e in examples), strict=True)]
    for length in lengths:
        expected = theirs(*sides, truncation="longest_first", max_length=length)
        ours = task.features(examples, tokenizer, length, training=True)
        assert [f.input_ids for f in ours] == expected["input_ids"]
        assert [f.token_type_ids for f in ours] == expected["token_type_ids"]


def test_real_chinese_reviews_as_a_table_of_one_s_own(real_data, tmp_path):
    folder = real_data / "zh_cls/ChnSentiCorp"
    config = TaskConfig(train=str(folder / "train.tsv"), dev=str(folder / "dev.tsv"), text_column="1", label_column="2")
    task = Classification(config)
    assert (len(task.read("train")), len(task.read("dev"))) == (9600, 1200)
    assert task.head.labels == ("negative", "positive")
    vocab = real_data / "vocab/bert-base-chinese-vocab.txt"
    assert_same_ids(task, task.read("dev")[:300], vocab, tmp_path, lowercase=False)


def test_a_long_text_is_no_malformed_table(tmp_path):
    (tmp_path / "long.csv").write_text("text,label\n" + "word " * 50_000 + ",a\n")
    assert len(read_table(tmp_path / "long.csv")[0].values["text"]) == 250_000
