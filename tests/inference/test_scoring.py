"""`predict classify --columns`: a person's own table comes back with the classes that transformers gives its texts."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_labelling import folder_of, named
from transformers import BertForSequenceClassification

from bert_jax.cli.main import main

REVIEWS = ['The dog, of "spain"\nwatches', "", "=the king", "a bird in spain"]
LABELS = ["no", "perhaps", "=yes"]  # The last would be a spreadsheet's formula.


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    return folder, *folder_of(BertForSequenceClassification, folder, **named(LABELS))


def expected(model, tokenizer, *texts: list[str]) -> tuple[list[str], np.ndarray]:
    with torch.no_grad():
        logits = model(**tokenizer(*texts, return_tensors="pt", padding=True)).logits
    probabilities = torch.softmax(logits, -1).numpy()
    return [LABELS[i] for i in probabilities.argmax(1)], probabilities.max(1)


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("paired", [False, True])
def test_a_table_keeps_its_columns_and_gets_its_own(classifier, tmp_path, form, paired):
    folder, model, tokenizer = classifier
    table = pd.DataFrame({"id": ["007", "8", "9", "10"], "review": REVIEWS, "title": REVIEWS[::-1]})
    table.to_csv(tmp_path / "new.csv", index=False)
    columns = ["review", "title"] if paired else ["review"]
    output = tmp_path / f"scored.{form}"
    files = ["--input", str(tmp_path / "new.csv"), "--output", str(output)]
    assert main(["predict", "classify", "--model", str(folder), *files, "--columns", *columns]) == 0
    if form == "jsonl":
        found = pd.DataFrame([json.loads(line) for line in output.read_text().splitlines()])
    else:
        found = pd.read_csv(output, sep="," if form == "csv" else "\t", dtype={"id": str}, keep_default_na=False)
    assert list(found.columns) == ["id", "review", "title", "predicted", "probability"]
    pd.testing.assert_frame_equal(found[["id", "review", "title"]], table, check_dtype=False)
    labels, probabilities = expected(model, tokenizer, *(list(table[name]) for name in columns))
    assert paired or "=yes" in labels
    assert list(found["predicted"]) == [
        f"'{label}" if form != "jsonl" and label.startswith("=") else label for label in labels
    ]
    np.testing.assert_allclose(found["probability"].astype(float), probabilities, atol=1e-5)


def test_values_and_several_labels(tmp_path, capsys):
    (tmp_path / "new.jsonl").write_text('{"text": "the dog", "tags": ["a"]}\n{"text": "a king"}\n')
    for problem_type, labels in (("regression", ["score"]), ("multi_label_classification", LABELS[1:])):
        folder = tmp_path / problem_type
        folder.mkdir()
        model, tokenizer = folder_of(BertForSequenceClassification, folder, problem_type=problem_type, **named(labels))
        flags = ["--input", str(tmp_path / "new.jsonl"), "--columns", "text"]
        capsys.readouterr()
        assert main(["predict", "classify", "--model", str(folder), *flags]) == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        assert [row["tags"] for row in rows] == ['["a"]', ""]
        with torch.no_grad():
            logits = model(**tokenizer(["the dog", "a king"], return_tensors="pt", padding=True)).logits
        if problem_type == "regression":
            np.testing.assert_allclose([float(row["predicted"]) for row in rows], logits[:, 0], atol=1e-4)
            continue
        for row, probabilities in zip(rows, torch.sigmoid(logits), strict=True):
            assert row["predicted"] == "; ".join(
                name for name, p in zip(labels, probabilities, strict=True) if p >= 0.5
            )
            given = [float(row[f"predicted {name}"]) for name in labels]
            np.testing.assert_allclose(given, probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "flags", "message"),
    [
        ('{"review": "a"}\n{"review": "b", "predicted x": 1}\n', ["--columns", "review"], "has a column 'predicted x'"),
        (
            "review\na\n",
            ["--columns", "reviews"],
            "new.csv: has no column 'reviews', named by --columns; did you mean 'review'?",
        ),
        (
            "review,predicted\na,b\n",
            ["--columns", "review"],
            "has a column 'predicted', as the results would be called; rename it",
        ),
        ("review,x\na\n", ["--columns", "review"], "new.csv, line 2: has 1 columns"),
        ("a,b,c\n1,2,3\n", ["--columns", "a", "b", "c"], "--columns: are 3"),
        ("a,b\n1,2\n", ["--columns", "a", "b", "--pair", "x"], "--pair: is a column's, by --columns"),
    ],
)
def test_tables_that_cannot_be_scored(classifier, tmp_path, capsys, table, flags, message):
    (tmp_path / "new.csv").write_text(table)
    output = tmp_path / "scored.csv"
    arguments = ["--model", str(classifier[0]), "--input", str(tmp_path / "new.csv"), "--output", str(output)]
    assert main(["predict", "classify", *arguments, *flags]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1] and not output.exists()
