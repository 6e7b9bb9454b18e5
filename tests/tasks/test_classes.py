"""Labels that say something else than they seem: refused with file, line and remedy, or counted for all to see."""

import json
import unicodedata

import pytest

from bert_jax import tasks
from bert_jax.config import FinetuneConfig, InputError, TaskConfig
from bert_jax.tasks import classes
from bert_jax.tasks.classification import Classification

# pandas 2.2's STR_NA_VALUES but "", which is refused as empty.
PANDAS = [
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
]


def task(tmp_path, values: list, name: str = "classification", **settings) -> Classification:
    """Of a training file with a text for each label."""
    rows = [json.dumps({"text": f"text {i}", "label": label}) for i, label in enumerate(values)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return Classification(TaskConfig(name=name, train=str(tmp_path / "train.jsonl"), **settings))


def refused(tmp_path, values: list, line: int, message: str, **settings) -> None:
    with pytest.raises(InputError, match=rf"train\.jsonl, line {line}: .*{message}") as error:
        task(tmp_path, values, **settings).read("train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", [*PANDAS, "undefined"])
def test_what_means_missing_is_no_class_unless_it_is_named(tmp_path, label):
    refused(tmp_path, ["a", "b", label], 3, "looks like a missing value.*--task.labels")
    named = task(tmp_path, ["a", "b", label], labels=("a", "b", label))
    assert [example.label for example in named.read("train")] == ["a", "b", label]
    assert named.head.labels == ("a", "b", label)


@pytest.mark.parametrize("label", [None, float("nan"), float("inf"), "", "  ", "\u00a0", [1], {"a": 1}])
def test_what_is_no_label_at_all_is_never_one(tmp_path, label):
    refused(tmp_path, ["a", "b", label], 3, "label is", labels=("a", "b", "nan", "NaN", "Infinity"))


ALIKE = [
    *((1, 1.0), ("1", "1.0"), ("1", "01"), ("1", "+1"), ("1", "１"), (True, 1), (True, "True"), ("False", "0")),
    *(("positive", "Positive"), ("POS", "pos"), ("ja", "JA"), ("straße", "STRASSE"), ("был", "Был")),
    *(("a b", "a  b"), ("a b", "a\u00a0b"), ("a b", "a_b"), ("a-b", "a\u2011b"), ("a-b", "a b"), ("pos", "pos.")),
    *(("pos", '"pos"'), ("pos", "'pos'"), ("café", unicodedata.normalize("NFD", "café")), ("ab", "ａｂ"), ("x²", "x2")),
    *(("pos", "рos"), ("ACE", "АСЕ"), ("\u2764", "\u2764\ufe0f"), ("می\u200cشود", "میشود"), ("-1", "\u22121")),
]
INVISIBLE = ["pos\u200b", "\ufeffpos", "po\u00ads", "pos\u200e", "pos\x07", "\u2060pos", "p\u00a0q"]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_two_ways_to_write_a_class_are_asked_about(tmp_path, one, other):
    refused(tmp_path, [one, "x", other], 3, r"is much like .* line 1; .*--task\.labels")
    names = [label if isinstance(label, str) else json.dumps(label) for label in (one, "x", other)]
    assert task(tmp_path, [one, "x", other], labels=tuple(names)).head.labels == tuple(names)


@pytest.mark.parametrize("label", INVISIBLE)
def test_what_can_t_be_seen_is_asked_about(tmp_path, label):
    refused(tmp_path, ["a", label], 2, r"the label .*\\.* has an invisible character")


@pytest.mark.parametrize(
    "labels",
    [
        *(["C", "C++", "C#"], ["--", "-", "0", "+", "++"], ["1", "2", "10"], ["1", "-1"], ["A", "A-", "A+"]),
        *(
            [".", ",", "?"],
            ["none", "favor", "against"],
            ["0.5", "1", "1.5"],
            ["yes", "no"],
            ["\U0001f468\u200d\U0001f469", "x"],
        ),
        *(
            ["می\u200cشود", "نمی\u200cشود"],
            ["да", "нет"],
            ["正面", "负面"],
            ["LABEL_1", "LABEL_11"],
            ["x", "y", "", "z"][:2],
        ),
    ],
)
def test_classes_that_differ_are_taken_as_they_are(tmp_path, labels):
    assert task(tmp_path, labels).head.labels == tuple(sorted(labels))


def test_a_column_that_isn_t_one_of_classes_is_asked_about(tmp_path):
    refused(tmp_path, [f"a text of its own, {i}" for i in range(30)], 1, "30 different labels in 30 rows.*label-column")
    refused(tmp_path, [i / 8 for i in range(12)] * 20, 1, "12 numbers with fractions; take --task.name regression")
    assert len(task(tmp_path, [i / 2 for i in range(10)] * 2).head.labels) == 10  # Half stars.
    assert len(task(tmp_path, list(range(150)) * 2).head.labels) == 150
    names = tuple(f"intent {i}" for i in range(30))
    assert task(tmp_path, list(names), labels=names).head.labels == names  # One example of each.
    with pytest.raises(InputError, match=r"task.label_column: is 'text', which is another column"):
        FinetuneConfig(task=TaskConfig(label_column="text")).validate()
    with pytest.raises(InputError, match=r"task.pair_column: is 'text', which is another column"):
        FinetuneConfig(task=TaskConfig(pair_column="text")).validate()


HEADERS = ["text\tlabel", "Sentence\tGold", "review\tsentiment"]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_is_no_example_where_columns_have_numbers(tmp_path, header):
    (tmp_path / "a.tsv").write_text(header + "\n" + "it is fine\tpos\nit is bad\tneg\n" * 2)
    numbers = dict(text_column="1", label_column="2")
    with pytest.raises(InputError, match=r"a\.tsv, line 1: looks like a header \("):
        Classification(TaskConfig(train=str(tmp_path / "a.tsv"), **numbers)).read("train")
    (tmp_path / "test.txt").write_text(header.partition("\t")[0] + "\nit is fine\n")
    test = Classification(TaskConfig(test=str(tmp_path / "test.txt"), **numbers), ("neg", "pos"))
    with pytest.raises(InputError, match=r"test\.txt, line 1: looks like a header"):
        test.read("test")


@pytest.mark.parametrize(
    "label", ["1,5", "1.234,5", "1,234.5", "1 234", "1_000", "nan", "inf", "1e999", "5%", "$5", "0x1", "true", "１.5"]
)
def test_a_regression_s_numbers_are_written_one_way(tmp_path, label):
    refused(tmp_path, [1, 2.5, label], 3, "must be a number; write it as 1234.5", name="regression")


def test_a_regression_takes_all_numbers_and_says_their_range(tmp_path):
    values = [1, -2.5, "3", " 4.5 ", "1e-3", ".5", "+7."]
    regression = task(tmp_path, values, name="regression")
    examples = regression.read("train")
    assert [example.label for example in examples] == [1, -2.5, 3, 4.5, 0.001, 0.5, 7]
    assert regression.summary(examples) == "from -2.5 to 7, mean 1.929"


def test_labels_that_are_named(tmp_path):
    named = task(tmp_path, ["b", "a", "b"], labels=("c", "b", "a"))
    assert named.head.labels == ("c", "b", "a")
    assert named.summary(named.read("train")) == "b 2, a 1, c 0"
    refused(tmp_path, ["b", "A"], 2, r"label 'A' in column label is none of task.labels: a, b", labels=("a", "b"))
    with pytest.raises(InputError, match=r"task.labels: are a, c, the model's a, b"):
        _ = Classification(TaskConfig(labels=("a", "c")), ("a", "b")).head
    for labels, name, message in (
        (("a", "a"), "classification", "name each once"),
        (("a ", "b"), "classification", "without spaces"),
    ):
        with pytest.raises(InputError, match=f"task.labels: .*{message}"):
            FinetuneConfig(task=TaskConfig(name=name, labels=labels)).validate()
    for name in ("rte", "regression", "squad", "ner", "srl", "swag"):
        with pytest.raises(InputError, match=f"task.labels: the task {name} has its own; leave them out"):
            tasks.make(TaskConfig(name, labels=("a", "b"), folder=str(tmp_path)))


def test_counts_are_the_most_frequent_first_and_many_are_abbreviated():
    assert classes.counted(["b", "a", None, "b"], ["a", "b", "c"]) == "b 2, a 1, c 0; 1 without a label"
    assert classes.counted([None] * 1200, ["a"]) == "1,200 without a label"
    many = [f"{i:02}" for i in range(40) for _ in range(2 if i else 1)]
    assert classes.counted(many).endswith("09 2, 10 2, and 30 more, the rarest 00 1")


def test_the_same_text_with_two_labels_is_said(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text,label\none,a\ntwo,b\none,b\ntwo,b\n")
    Classification(TaskConfig(train=str(tmp_path / "a.csv"))).read("train")
    assert "classification, train: 1 inputs occur more than once, with different labels" in capsys.readouterr().err


def test_ids_tell_the_rows_of_what_is_scored_apart(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,id\none,a,7\ntwo,b,8\nthree,b,7\n")
    config = dict(train=str(tmp_path / "a.csv"), dev=str(tmp_path / "a.csv"), id_column="id")
    twice = Classification(TaskConfig(**config))
    assert len(twice.read("train")) == 3
    with pytest.raises(InputError, match=r"a\.csv, line 4: id is '7', as at .*line 2; it must tell rows apart"):
        twice.read("dev")
