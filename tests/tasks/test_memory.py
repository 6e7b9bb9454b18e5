"""Data in memory: the examples of a file with the same rows, whatever holds them, or an error that names the row."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from bert_jax import tasks
from bert_jax.config import InputError, TaskConfig

TEXTS = ["one text", "another", "a third", "and a last"]
LABELS = ["good", "bad", "bad", "good"]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


class Feature:
    """As `datasets` has `ClassLabel`, and a list of them."""

    def __init__(self, names=None, feature=None):
        if names:
            self.names = names
        if feature:
            self.feature = feature


class Dataset:
    """What `datasets.Dataset` has of columns, features and rows."""

    def __init__(self, columns: dict, features: Mapping):
        self._columns, self.features = columns, dict.fromkeys(columns) | features

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key):
        return self._columns[key] if isinstance(key, str) else {n: c[key] for n, c in self._columns.items()}

    def __iter__(self):
        return (self[i] for i in range(len(self)))


class Splits(dict):
    """What `datasets.DatasetDict` has."""

    @property
    def column_names(self) -> dict:
        return {name: split.column_names for name, split in self.items()}


CLASSES = {"label": Feature(["good", "bad"])}
KINDS = {
    "rows": ROWS,
    "a generator": (row for row in ROWS),
    "columns": {"text": TEXTS, "label": tuple(LABELS)},
    "arrays": {"text": np.array(TEXTS), "label": np.array(LABELS, object)},
    "a frame": pd.DataFrame(ROWS, index=[7, 7, 8, 9]),
    "a frame of categories": pd.DataFrame(ROWS).astype({"label": "category"}),
    "a data set": Dataset({"text": TEXTS, "label": LABELS}, {}),
    "class numbers": Dataset({"text": TEXTS, "label": [0, 1, 1, 0]}, CLASSES),
    "class numbers in arrays": Dataset({"text": TEXTS, "label": np.array([0, 1, 1, 0])}, CLASSES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_the_examples_of_a_file(tmp_path, kind):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    of_file = tasks.make(TaskConfig(train=str(tmp_path / "train.jsonl")))
    task = tasks.make(TaskConfig(), train=KINDS[kind])
    assert task.read("train") == of_file.read("train")
    assert task.head == of_file.head and (task.dev_splits, task.test_splits) == ((), ())


def test_numbers_are_labels_and_values_as_in_json_lines(tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "label": np.array([1, 0, 0, 1], np.int8), "stars": [1, 2.5, 3, -1]})
    assert tasks.make(TaskConfig(), train=frame).head.labels == ("0", "1")
    regression = tasks.make(TaskConfig("regression", label_column="stars"), train=frame, test=frame[["text"]])
    assert [one.label for one in regression.read("train")] == [1, 2.5, 3, -1]
    assert [one.label for one in regression.read("test")] == [None] * 4


def test_unknown_classes_of_a_test_set_and_pairs():
    data = Dataset({"a": TEXTS, "b": TEXTS[::-1], "label": [0, 1, -1, None], "idx": [4, 5, 6, 7]}, CLASSES)
    config = TaskConfig(text_column="a", pair_column="b", id_column="idx", labels=("good", "bad"))
    examples = tasks.make(config, test=data).read("test")
    assert [one.label for one in examples] == ["good", "bad", None, None]
    assert (examples[1].texts, examples[1].id) == (("another", "a third"), "5")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("train.csv", "train: is a str, must be data; name a file in the config: task.train"),
        (3, "train: is a int, must be a list of dicts"),
        ([], "train: holds no rows"),
        ({}, "train: holds no rows"),
        (["a text"], "train, row 0: is a str, must be a dict"),
        ({"text": TEXTS, "label": LABELS[:3]}, "train: column 'label' has 3 values, 'text' has 4"),
        ({"text": "a text", "label": LABELS}, "train: column 'text' is 'a text', must be a list"),
        (Splits(train=Dataset({"text": TEXTS}, {})), r"train: holds several splits \(train\); give one"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "train: two columns are called 'text'"),
        (pd.DataFrame({"body": TEXTS, "label": LABELS}), "train: has no column 'text', only body, label; .*-column$"),
        (pd.DataFrame({"text": [*TEXTS[:3], None], "label": LABELS}), "train, row 3: text is (None|nan), must be text"),
        (pd.DataFrame({"text": TEXTS, "label": pd.array([1, 0, None, 1], "Int64")}), "train, row 2: label is null"),
        (pd.DataFrame({"text": TEXTS, "label": pd.Timestamp(0)}), "train, row 0: label is .1970.*, must be text or a"),
        ([*ROWS, {"text": " ", "label": "good"}], "train, row 4: text is empty"),
        ([*ROWS, {"text": "half \ud800", "label": "good"}], "train, row 4: text has half a character at 5"),
        ([*ROWS, {"text": "a", "label": "Good"}], "train, row 4: the label 'Good' is much like 'good' of train, row 0"),
    ],
)
def test_what_doesn_t_fit_is_named(data, message):
    with pytest.raises(InputError, match=f"^{message}"):
        tasks.make(TaskConfig(), train=data).head  # noqa: B018
        tasks.make(TaskConfig(), train=data).read("train")


def test_a_file_beside_data_and_tasks_of_official_files_are_refused():
    with pytest.raises(InputError, match="task.dev: names dev.csv, and dev is given as data too; give one of them"):
        tasks.make(TaskConfig(dev="dev.csv"), dev=ROWS)
    for name in ("rte", "srl"):
        with pytest.raises(InputError, match=f"^{name}: reads "):
            tasks.make(TaskConfig(name), train=ROWS)


# Other tasks

TOKENS, TAGS = [["Ada", "met", "Bo"], ["Ulm"]], [["B-PER", "O", "B-PER"], ["B-LOC"]]
NAMES = ["O", "B-PER", "B-LOC"]


def test_tags_in_memory(tmp_path):
    (tmp_path / "train.conll").write_text("Ada\tB-PER\nmet\tO\nBo\tB-PER\n\nUlm\tB-LOC\n")
    of_file = tasks.make(TaskConfig("ner", train=str(tmp_path / "train.conll")))
    numbered = [[NAMES.index(tag) for tag in tags] for tags in TAGS]
    features = {"tags": Feature(feature=Feature(NAMES))}
    for data in (
        {"tokens": TOKENS, "tags": TAGS},
        pd.DataFrame({"tokens": TOKENS, "tags": list(map(np.array, TAGS))}),
        Dataset({"tokens": TOKENS, "tags": numbered}, features),
    ):
        task = tasks.make(TaskConfig("ner"), train=data, test={"tokens": [["a\tb", "c"]]})
        assert [(e.words, e.tags) for e in task.read("train")] == [(e.words, e.tags) for e in of_file.read("train")]
        assert task.head == of_file.head
    assert [example.where for example in task.read("train")] == ["train, row 0", "train, row 1"]
    tagged = [type("Tagged", (), {"tags": ["O", "B-PER"]})]
    (file,) = task.submit(tmp_path / "out", "test", task.read("test"), tagged)
    assert file.read_text() == "a b\tO\nc\tB-PER\n\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tokens": TOKENS, "ner_tags": TAGS}, "train, row 0: has no 'tags', only tokens, ner_tags; rename"),
        ({"tokens": TOKENS, "tags": [TAGS[0], ["O", "O"]]}, "train, row 1: has 1 tokens and 2 tags"),
        ({"tokens": [*TOKENS, []], "tags": [*TAGS, []]}, "train, row 2: tokens is empty"),
        ({"tokens": ["Ada met", "Ulm"], "tags": TAGS}, "train, row 0: tokens is 'Ada met', must be a list of strings"),
        ({"tokens": TOKENS, "tags": [TAGS[0], ["LOC"]]}, "train, row 1: the last column's tag 'LOC' is neither"),
    ],
)
def test_tags_that_don_t_fit_are_named(data, message):
    with pytest.raises(InputError, match=f"^{message}"):
        tasks.make(TaskConfig("ner"), train=data).read("train")


CONTEXT = "Ada met Bo in Ulm."
QUESTIONS = {
    "id": ["x", "y"],
    "title": ["", ""],
    "context": [CONTEXT, CONTEXT],
    "question": ["Who?", "Where?"],
    "answers": [{"text": ["Ada"], "answer_start": [0]}, {"text": ["Ulm", "in Ulm"], "answer_start": [14, 11]}],
}


def test_questions_in_memory(tmp_path):
    qas = [
        {"id": "x", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]},
        {
            "id": "y",
            "question": "Where?",
            "answers": [{"text": "Ulm", "answer_start": 14}, {"text": "in Ulm", "answer_start": 11}],
        },
    ]
    content = {"data": [{"title": "", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    of_file = tasks.make(TaskConfig("squad", train=str(tmp_path / "train.json")))
    task = tasks.make(TaskConfig("squad"), train=QUESTIONS)
    assert task.read("train") == of_file.read("train") and task.dev_splits == ()
    none = pd.DataFrame(QUESTIONS | {"answers": [QUESTIONS["answers"][0], {"text": np.array([]), "answer_start": []}]})
    task = tasks.make(TaskConfig("squad", unanswerable=True), dev=none)
    assert task.dev_splits == ("dev",) and [one.answers for one in task.read("dev")] == [("Ada",), ()]
    with pytest.raises(InputError, match="^dev, row 1: has no answer, as in version 2.0; set --task.unanswerable"):
        tasks.make(TaskConfig("squad"), dev=none).read("dev")


def test_choices_in_memory():
    rows = [
        {"context": "He sat.", "question": "", "choices": ["He rose.", "It rained."], "label": 1},
        {"context": "She ran.", "question": "Then", "choices": ["she fell.", "he ate."], "label": 0},
    ]
    endings = {"sent1": ["He sat."], "sent2": ["He"], "ending0": ["rose."], "ending1": ["slept."], "label": [0]}
    task = tasks.make(TaskConfig("multiple_choice"), train=rows, dev=endings)
    assert [(one.choices, one.label) for one in task.read("train")] == [
        (["He rose.", "It rained."], 1),
        (["Then she fell.", "Then he ate."], 0),
    ]
    assert task.dev_splits == ("dev",) and task.read("dev")[0].choices == ["He rose.", "He slept."]
    with pytest.raises(InputError, match="^train, row 1: label is 2, must be the right choice's index, 0 to 1"):
        tasks.make(TaskConfig("swag"), train=[rows[0], rows[1] | {"label": 2}]).read("train")
