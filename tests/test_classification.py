"""Classification and regression: official files, tables of one's own, features, scores and submissions."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import GLUE, InputError, TaskConfig
from bert_jax.data.tokenizers import SPECIAL, WordPiece
from bert_jax.tasks.classification import Classification, Example, Prediction, model_input
from bert_jax.tasks.glue import GLUE_TASKS
from bert_jax.tasks.tables import read_table

NLI = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
# Each task's files as GLUE has them: header, a row or two, quotes that stand alone, a byte order mark here and there.
FILES = {
    "CoLA/train.tsv": "gj04\t1\t\tOur friends \"won't buy it.\ngj04\t0\t*\tThe car honked down.\n",
    "CoLA/dev.tsv": "gj04\t0\t*\tThem left.\n",
    "CoLA/test.tsv": "index\tsentence\n0\tBill whistled.\n",
    "SST-2/train.tsv": "sentence\tlabel\nhide new secretions \t0\n",
    "SST-2/dev.tsv": "sentence\tlabel\nit 's charming . \t1\n",
    "SST-2/test.tsv": "index\tsentence\n0\tuneasy mishmash\n",
    "MRPC/msr_paraphrase_train.txt": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe "left.\tHe went.\r\n0\t5\t6\tA b.\tC d.\r\n'
    ),
    "MRPC/dev_ids.tsv": "5\t6\n",
    "MRPC/msr_paraphrase_test.txt": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tX.\tY.\n",
    "STS-B/train.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA plane.\tAn air plane.\t5.000\n",
    "STS-B/dev.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA man.\tA dog.\t0.750\n",
    "STS-B/test.tsv": "index\tgenre\tsentence1\tsentence2\n0\tnews\tA girl.\tA girl.\n",
    "QQP/train.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n133273\t1\t2\tWho?\tWhom?\t1\n"
        "402555\t3\t4\tHow does\nit work?\tWhy?\t0\n360472\t5\t6\tWhat?\t\t0\n"
    ),
    "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\tWho?\tWhom?\t0\n",
    "QQP/test.tsv": "id\tquestion1\tquestion2\n0\tWhere?\tWhen?\n",
    "MNLI/train.tsv": NLI + "0\t1\t1n\tfiction\tIt is.\tIt isn't.\tcontradiction\tcontradiction\n",
    "MNLI/dev_matched.tsv": NLI + "0\t1\t1n\tfiction\tIt is.\tIt is.\tneutral\tentailment\n",
    "MNLI/dev_mismatched.tsv": NLI + "0\t1\t1n\tletters\tA.\tB.\tneutral\tneutral\n",
    "MNLI/test_matched.tsv": "index\tpairID\tsentence1\tsentence2\n0\t1\tM.\tN.\n",
    "MNLI/test_mismatched.tsv": "index\tpairID\tsentence1\tsentence2\n0\t1\tO.\tP.\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1.\tentailment\n",
    "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWho?\tNobody.\tnot_entailment\n",
    "QNLI/test.tsv": "index\tquestion\tsentence\n0\tWhy?\tSo.\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tNo.\tYes.\tnot_entailment\n",
    "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tYes.\tYes.\tentailment\n",
    "RTE/test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
    "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt is.\tHe is.\t1\n",
    "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt was.\tHe was.\t0\n",
    "WNLI/test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
    "diagnostic/diagnostic-full.tsv": (
        "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\tHypothesis\tLabel\n"
        "\t\tNegation\t\tNews\tThe cat sat.\tThe cat did not sit.\tcontradiction\n"
    ),
    "diagnostic/diagnostic.tsv": "index\tsentence1\tsentence2\n0\tThe cat sat.\tThe cat did not sit.\n",
}
DEV = {
    "cola": (("Them left.",), "0"),
    "sst-2": (("it 's charming . ",), "1"),
    "mrpc": (("A b.", "C d."), "0"),
    "sts-b": (("A man.", "A dog."), 0.75),
    "qqp": (("Who?", "Whom?"), "0"),
    "mnli": (("It is.", "It is."), "entailment"),
    "qnli": (("Who?", "Nobody."), "not_entailment"),
    "rte": (("Yes.", "Yes."), "entailment"),
    "wnli": (("It was.", "He was."), "0"),
    "ax": (("The cat sat.", "The cat did not sit."), "contradiction"),
}
METRICS = {
    **dict.fromkeys(["sst-2", "mnli", "qnli", "rte", "wnli"], ["accuracy"]),
    **dict.fromkeys(["mrpc", "qqp"], ["accuracy", "f1"]),
    **dict.fromkeys(["cola", "ax"], ["matthews"]),
    "sts-b": ["pearson", "spearman"],
}


@pytest.fixture(scope="module")
def glue_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("glue_data")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("name", GLUE)
def test_glue_from_the_official_files(glue_folder, name):
    task = Classification(TaskConfig(name=name, folder=str(glue_folder)))
    (dev,) = task.read(task.dev_splits[0])
    assert (dev.texts, dev.label) == DEV[name]
    tests = [example for split in task.test_splits for example in task.read(split)]
    assert {example.label for example in tests} == ({"1"} if name == "mrpc" else {None})
    assert {example.id for example in tests} == {"0"}
    perfect = [Prediction(dev.label, 1.0)]
    assert list(task.metrics([dev], perfect)) == METRICS[name]
    assert task.best_by == METRICS[name][-1]
    if name != "ax":
        assert {example.label for example in task.read("train")} <= {*task.head.labels} or name == "sts-b"


def test_glue_quotes_are_characters_and_the_task_s_own_folder_does_too(glue_folder):
    task = Classification(TaskConfig(name="cola", folder=str(glue_folder / "CoLA")))
    assert task.read("train")[0] == Example("0", ("Our friends \"won't buy it.",), "1")
    task = Classification(TaskConfig(name="mrpc", folder=str(glue_folder)))
    assert task.read("train") == [Example("0", ('He "left.', "He went."), "1")]


def test_qqp_leaves_out_the_lines_that_the_original_does_and_keeps_empty_texts(glue_folder, capsys):
    train = Classification(TaskConfig(name="qqp", folder=str(glue_folder))).read("train")
    assert [example.id for example in train] == ["133273", "360472"]
    said = capsys.readouterr().err
    assert "qqp, train: 2 lines without all columns left out" in said
    assert "1 examples with an empty text" in said


def test_mnli_has_two_of_each(glue_folder, tmp_path):
    task = Classification(TaskConfig(name="mnli", folder=str(glue_folder)))
    assert [task.read(split)[0].texts[0] for split in task.dev_splits] == ["It is.", "A."]
    names = []
    for split in task.test_splits:
        names += task.submit(tmp_path / "out", split, task.read(split), [Prediction("neutral", 0.5)])
    assert [(path.name, path.read_text()) for path in names] == [
        ("MNLI-m.tsv", "index\tprediction\n0\tneutral\n"),
        ("MNLI-mm.tsv", "index\tprediction\n0\tneutral\n"),
    ]


def test_ax_is_for_a_model_of_mnli(glue_folder, tmp_path):
    config = TaskConfig(name="ax", folder=str(glue_folder))
    labels = ("neutral", "entailment", "contradiction")
    task = Classification(config, labels)
    assert task.head.labels == labels
    with pytest.raises(InputError, match="mnli"):
        task.read("train")
    with pytest.raises(InputError, match="the model entailment, not_entailment"):
        Classification(config, ("entailment", "not_entailment")).read("dev")
    assert Classification(TaskConfig(name="ax", folder=str(tmp_path))).dev_splits == ()


def test_submissions_have_the_official_names_and_scores_their_range(glue_folder, tmp_path):
    names = set()
    for name in GLUE:
        task = Classification(TaskConfig(name=name, folder=str(glue_folder)))
        label = 5.25 if name == "sts-b" else task.head.labels[0]
        for split in task.test_splits:
            names |= {p.name for p in task.submit(tmp_path, split, task.read(split), [Prediction(label, 1.0)])}
    assert names == {
        *("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"),
        *("QNLI.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv"),
    }
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t5.000\n"
    task = Classification(TaskConfig(name="sts-b", folder=str(glue_folder)))
    examples = [Example(str(i), ("", ""), None) for i in range(3)]
    task.submit(tmp_path, "test", examples, [Prediction(x, None) for x in (-0.2, 2.00049, 3.1235)])
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t0.000\n1\t2.000\n2\t3.123\n"


@pytest.mark.parametrize("name", GLUE)
def test_glue_through_tfds(name):
    import tensorflow_datasets as tfds

    task = Classification(TaskConfig(name=name))
    with tfds.testing.mock_data(num_examples=4):
        for split in (*task.dev_splits, *task.test_splits):
            examples = task.read(split)
            assert len(examples) == 4
            assert [int(e.id) for e in examples] == sorted(int(e.id) for e in examples)
            assert all(len(e.texts) == len(GLUE_TASKS[name].texts) for e in examples)
            known = {type(e.label) for e in examples} == {float if name == "sts-b" else str}
            assert known if split in task.dev_splits else {e.label for e in examples} == {None}


def test_tfds_classes_get_the_names_of_the_files(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds.builder("glue/mnli", data_dir=str(tmp_path))
    records = {"premise": ["a", "b", "c"], "hypothesis": ["x", "y", "ü"], "label": [2, 0, 1], "idx": [2, 1, 0]}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="glue",
        version=str(builder.version),
        features=builder.info.features,
        split_datasets={"validation_matched": tf.data.Dataset.from_tensor_slices(records)},
        config="mnli",
        data_dir=str(tmp_path),
    )
    task = Classification(TaskConfig(name="mnli", data_dir=str(tmp_path)))
    assert task.read("dev_matched") == [
        Example("0", ("c", "ü"), "neutral"),
        Example("1", ("b", "y"), "entailment"),
        Example("2", ("a", "x"), "contradiction"),
    ]


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


def test_glue_with_a_column_of_ids(glue_folder):
    """CoLA's files have none without a header."""
    with pytest.raises(InputError, match="train.tsv, line 1: has no 'id', only 1, 2, 3, 4; add it"):
        Classification(TaskConfig(name="cola", folder=str(glue_folder), id_column="id")).read("train")
    examples = Classification(TaskConfig(name="cola", folder=str(glue_folder), id_column="1")).read("train")
    assert {example.id for example in examples} == {"gj04"}


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


ROWS = {
    "cola": (8551, 1043, 1063),
    "sst-2": (67_349, 872, 1821),
    "sts-b": (5749, 1500, 1379),
    "rte": (2490, 277, 3000),
    "wnli": (635, 71, 146),
}


@pytest.mark.parametrize("name", ROWS)
def test_real_glue_has_its_official_number_of_rows_and_the_peer_s_ids(real_data, tmp_path, name):
    task = Classification(TaskConfig(name=name, folder=str(real_data / "glue")))
    splits = [task.read(split) for split in ("train", "dev", "test")]
    assert tuple(map(len, splits)) == ROWS[name]
    assert [e.id for e in splits[2]] == [str(i) for i in range(ROWS[name][2])]
    examples = [example for examples in splits for example in examples[:500]]
    assert_same_ids(task, examples, real_data / "vocab/bert-base-uncased-vocab.txt", tmp_path, lowercase=True)


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


def test_the_config_has_the_paper_s_recipe():
    from bert_jax.configs.finetune_glue import get_config

    config = get_config("mrpc")
    assert (config.task.name, config.batch_size, config.epochs, config.sequence_length) == ("mrpc", 32, 3, 128)
    assert (config.optimizer.learning_rate, config.warmup) == (2e-5, 0.1)
    with pytest.raises(InputError, match="'rti' is none of GLUE's: cola"):
        get_config("rti")
