"""Scores on test files: of all rows with a label, whatever the task, beside scikit-learn's and seqeval's."""

import csv
import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from bert_jax.config import FinetuneConfig, HeadConfig, InputError, TaskConfig, model_preset
from bert_jax.convert.origin import Folder
from bert_jax.convert.pretrained import Pretrained
from bert_jax.data.tokenizers import SPECIAL, WordPiece
from bert_jax.models import init_params, make_model
from bert_jax.runs.evaluation import evaluate_task
from bert_jax.runs.finetuning import _describe
from bert_jax.tasks import make
from bert_jax.tasks.classification import Example

WORDS = [chr(i) for i in range(97, 123)]
TOKENIZER = WordPiece([*SPECIAL, *WORDS], lowercase=True)
MODEL = model_preset("tiny", vocab_size=31, num_hidden_layers=1, hidden_size=16, num_attention_heads=2)
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 4)) for i in range(24)]


def scored(tmp_path, head: HeadConfig, task: TaskConfig, length: int = 32) -> tuple[dict, list[dict]]:
    """The scores of a model with fresh weights, and its predictions of the test split."""
    found = Pretrained(MODEL, head, TOKENIZER, init_params(make_model(MODEL, head), 1), Folder(""))
    config = FinetuneConfig(task=task, sequence_length=length, evaluation_batch_size=8)
    scores = evaluate_task(found, config, tmp_path / "out")
    lines = (tmp_path / "out/test/predictions.jsonl").read_text().splitlines()
    return scores, [json.loads(line) for line in lines]


def test_classification_is_scored_where_labels_are_known_and_keeps_its_rows(tmp_path, capsys):
    labels = ["no", "yes", "", "yes", "NaN", "-1", "no", "?"] * 3
    texts = ["" if i in (1, 7) else text for i, text in enumerate(TEXTS)]
    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    head = HeadConfig("sequence_classification", ("no", "yes"))
    scores, rows = scored(tmp_path, head, TaskConfig(test=str(tmp_path / "t.csv")))
    assert [row["text"] for row in rows] == texts
    assert len((tmp_path / "out/test/test.csv").read_text().splitlines()) == 1 + len(texts)
    known = [(label, row["predicted"]) for label, row in zip(labels, rows, strict=True) if label in ("yes", "no")]
    gold, predicted = zip(*known, strict=True)
    assert scores["test_accuracy"] == pytest.approx(100 * sklearn.accuracy_score(gold, predicted))
    assert scores["test_macro_f1"] == pytest.approx(100 * sklearn.f1_score(gold, predicted, average="macro"))
    assert "<tr><td>no</td><td>" in (tmp_path / "out/test/page.html").read_text()
    said = capsys.readouterr()
    assert "test: 24 examples: no 6, yes 6; 12 without a label" in said.out
    assert "2 examples with an empty text, kept" in said.err


def test_regression_is_scored_but_where_all_is_minus_one(tmp_path, capsys):
    values = [None if i % 5 == 4 else i / 4 for i in range(len(TEXTS))]
    head, file = HeadConfig("sequence_classification", ("label",)), tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"text": t, "label": x}) + "\n" for t, x in zip(TEXTS, values, strict=True)))
    scores, rows = scored(tmp_path, head, TaskConfig("regression", test=str(file)))
    known = [(x, row["predicted"]) for x, row in zip(values, rows, strict=True) if x is not None]
    gold, predicted = zip(*known, strict=True)
    assert scores["test_mse"] == pytest.approx(sklearn.mean_squared_error(gold, predicted))
    assert scores["test_pearson"] == pytest.approx(100 * stats.pearsonr(gold, predicted).statistic)
    assert "from 0 to 5.75, mean 2.875; 4 without a label" in capsys.readouterr().out
    file.write_text("".join(json.dumps({"text": text, "label": -1.0}) + "\n" for text in TEXTS))
    assert scored(tmp_path, head, TaskConfig("regression", test=str(file)))[0] == {}
    assert f"{len(TEXTS)} without a label" in capsys.readouterr().out


def test_pairs_of_glue_are_scored_where_the_file_has_labels(tmp_path):
    lines = [f"{i}\t{TEXTS[i]}\t{TEXTS[-i]}\t{'entailment' if i % 3 else 'not_entailment'}" for i in range(9)]
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "\n".join(lines) + "\n")
    head = HeadConfig("sequence_classification", ("entailment", "not_entailment"))
    labelled = TaskConfig("rte", test=str(tmp_path / "test.tsv"), dev=str(tmp_path / "test.tsv"))
    scores, rows = scored(tmp_path, head, labelled)
    gold = [line.split("\t")[-1] for line in lines]
    accuracy = 100 * sklearn.accuracy_score(gold, [row["predicted"] for row in rows])
    assert scores == pytest.approx({"dev_accuracy": accuracy, "test_accuracy": accuracy})
    # As files have them whose labels are secret.
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\t-1\n")
    (tmp_path / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n")
    secret = TaskConfig("rte", test=str(tmp_path / "test.tsv"), dev=str(tmp_path / "dev.tsv"))
    assert scored(tmp_path, head, secret)[0].keys() == {"dev_accuracy"}


def test_tags_are_scored(tmp_path):
    from seqeval import metrics as seqeval

    tags = [["B-X", "I-X", "O"], ["O", "B-Y", "B-X"], ["O", "O", "B-Y"]] * 8
    sentences = [
        "".join(f"{w}\t{t}\n" for w, t in zip(text.split(), of, strict=False))
        for text, of in zip(TEXTS, tags, strict=True)
    ]
    (tmp_path / "test.txt").write_text("\n".join(sentences))
    head = HeadConfig("token_classification", ("O", "B-X", "B-Y", "I-X", "I-Y"))
    scores, _ = scored(tmp_path, head, TaskConfig("ner", folder=str(tmp_path)))
    lines = (tmp_path / "out/test/test.conll").read_text().strip().split("\n\n")
    predicted = [[line.split("\t")[-1] for line in sentence.split("\n")] for sentence in lines]
    assert scores["test_f1"] == pytest.approx(100 * seqeval.f1_score(tags, predicted))
    assert scores["test_accuracy"] == pytest.approx(100 * seqeval.accuracy_score(tags, predicted))
    assert "What was taken for what" not in (tmp_path / "out/test/page.html").read_text()  # Texts aren't classes.


def test_choices_are_scored_where_they_are_known(tmp_path, capsys):
    rows = [
        {"context": text if i else "", "choices": ["a", "b c", "d"], "label": i % 4 - 1} for i, text in enumerate(TEXTS)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores, found = scored(
        tmp_path, HeadConfig("multiple_choice"), TaskConfig("multiple_choice", test=str(tmp_path / "t.jsonl"))
    )
    known = [
        (row["choices"][row["label"]], one["predicted"])
        for row, one in zip(rows, found, strict=True)
        if row["label"] >= 0
    ]
    assert scores == pytest.approx({"test_accuracy": 100 * sklearn.accuracy_score(*zip(*known, strict=True))})
    assert "test: 24 examples: choice 0 6, choice 1 6, choice 2 6; 6 without a label" in capsys.readouterr().out


def test_answers_are_scored_where_they_are_known(tmp_path, capsys):
    answers = [[{"text": TEXTS[i][:3], "answer_start": 0}] if i % 2 else [] for i in range(8)]
    qas = [
        {"context": TEXTS[i], "qas": [{"id": str(i), "question": "a b", "answers": a}]} for i, a in enumerate(answers)
    ]
    qas[0]["qas"][0]["is_impossible"] = False  # As where answers are secret.
    (tmp_path / "t.json").write_text(json.dumps({"data": [{"paragraphs": qas}]}))
    (tmp_path / "dev-v1.1.json").write_text(json.dumps({"data": [{"paragraphs": qas[1::2]}]}))
    task = TaskConfig("squad", folder=str(tmp_path), test=str(tmp_path / "t.json"), query_length=8)
    scores, rows = scored(tmp_path, HeadConfig("question_answering"), task)
    assert len(rows) == 8 and "test: 8 examples: with an answer 4; 4 without a label" in capsys.readouterr().out
    exact = [one["predicted"] == TEXTS[i][:3] for i, one in enumerate(rows) if i % 2]
    assert scores["test_exact_match"] == pytest.approx(100 * np.mean(exact))
    assert scores["test_f1"] == pytest.approx(scores["dev_f1"])


def test_what_is_left_out_of_scores_is_said(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,Label\na,yes\n")
    head = HeadConfig("sequence_classification", ("no", "yes"))
    scores, _ = scored(tmp_path, head, TaskConfig(test=str(tmp_path / "t.csv")))
    assert scores == {}
    assert "no column 'label' for scores, but Label; --task.label-column names it" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("text,label\na,maybe\n")
    with pytest.raises(
        InputError, match=r"t\.csv, line 2: label 'maybe' in column label is none of the model's: no, yes"
    ):
        scored(tmp_path, head, TaskConfig(test=str(tmp_path / "t.csv")))


def test_dev_examples_that_were_learned_from_are_said(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text,label\na,yes\nb,no\nc,no\n")
    task = make(TaskConfig(train=str(tmp_path / "a.csv"), dev=str(tmp_path / "a.csv")))
    _describe(task, task.read("train"), {"dev": [*task.read("dev"), Example("9", ("new",), "no")]})
    assert capsys.readouterr().out == (
        "train: 3 examples: no 2, yes 1\ndev: 4 examples: no 3, yes 1\n"
        "dev: 3 of its examples are in the training set too, and flatter its scores\n"
    )


@pytest.mark.parametrize("content", ["a\tO\n\nb\n", "a\nb\n"])
def test_a_dev_file_without_tags_is_refused(tmp_path, content):
    (tmp_path / "train.txt").write_text("a\tB-X\nb\tO\n")
    (tmp_path / "dev.txt").write_text(content)
    with pytest.raises(InputError, match=r"dev\.txt, line \d"):
        make(TaskConfig("ner", folder=str(tmp_path))).read("dev")


def test_types_of_tags_that_are_alike_are_refused(tmp_path):
    (tmp_path / "train.txt").write_text("a\tB-PER\nb\tO\n\nc\tB-Per\n")
    with pytest.raises(
        InputError, match=r"train\.txt, line 4: the label 'Per' is much like 'PER' of .*line 1; write them"
    ):
        make(TaskConfig("ner", folder=str(tmp_path))).read("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"tokens": ["a"], "ner_tags": [0]}\n', "line 1: is JSON"),
        ("a,O\nb,B-PER\n", "line 1: a token and its tag are one column"),
        ("a;O\n\nb;O\n", "line 1: a token and its tag are one column"),
    ],
)
def test_other_formats_of_tags_are_named(tmp_path, content, message):
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text(content)
        with pytest.raises(InputError, match=message):
            make(TaskConfig("ner", folder=str(tmp_path)), ("O", "B-PER")).read(split)


def test_scores_that_have_no_value_are_no_number(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,1\nb,1\n")
    head = HeadConfig("sequence_classification", ("label",))
    scores, _ = scored(tmp_path, head, TaskConfig("regression", test=str(tmp_path / "t.csv")))
    assert math.isnan(scores["test_pearson"])
    assert json.loads((tmp_path / "out/scores.json").read_text())["test_pearson"] is None
