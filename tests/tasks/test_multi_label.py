"""Any number of labels for a text: tables, scores beside scikit-learn's, loss and outputs beside transformers'."""

import csv
import json
import random

import heads
import jax
import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from transformers import pipeline

from bert_jax.bench import torch_finetune
from bert_jax.cli.main import main
from bert_jax.config import FinetuneConfig, HeadConfig, InputError, TaskConfig, model_preset
from bert_jax.convert import pretrained
from bert_jax.convert.origin import Folder
from bert_jax.data.tokenizers import SPECIAL, WordPiece
from bert_jax.devices.sharding import path_name
from bert_jax.models import init_params, make_model
from bert_jax.objectives import HeadObjective
from bert_jax.runs.finetuning import _describe
from bert_jax.runs.page import write_page
from bert_jax.tasks import make, metrics
from bert_jax.tasks.base import Feature
from bert_jax.tasks.batches import Batches
from bert_jax.tasks.classification import Example

PROBLEM = "multi_label_classification"
WORDS = ["the", "a", "bird", "in", "watches", "dog", "king", "spain", "one"]
TOKENIZER = WordPiece([*SPECIAL, *WORDS], lowercase=True)


def task(tmp_path, name: str, text: str, split: str = "train", model: tuple[str, ...] = (), **settings):
    """Of one file, and a model's labels."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    return make(TaskConfig("multi_label", **{split: str(tmp_path / name)}, **settings), model)


# ---- Files ----------------------------------------------------------------------------------------------------------

EXAMPLES = [
    Example("0", ("one, two",), ("a b", "c")),
    Example("1", ("three",), ()),
    Example("2", ("four",), ("c",)),
    Example("3", ("five",), ("a b",)),
]
TABLES = {
    "separated": ("t.csv", 'text,label\n"one, two","c, a b"\nthree,\nfour,c\nfive,a b\n', {}),
    "semicolons": ("t.tsv", "text\ttags\none, two\tc;a b\nthree\t \nfour\tc\nfive\ta b\n", {"label_column": "tags"}),
    "json in csv": ("t.csv", 'text;label\none, two;"[""c"", ""a b""]"\nthree;[]\nfour;c\nfive;"[""a b""]"\n', {}),
    "json": (
        "t.jsonl",
        '{"text": "one, two", "label": ["c", "a b"]}\n{"text": "three", "label": []}\n'
        '{"text": "four", "label": "c"}\n{"text": "five", "label": "a b"}\n',
        {},
    ),
    "columns": (
        "t.csv",
        'text,a b,other,c\n"one, two",1,x,1\nthree,0,,0\nfour,0,y,1.0\nfive,True,z,false\n',
        {"labels": ("a b", "c")},
    ),
    "columns of json": (
        "t.json",
        '[{"text": "one, two", "a b": 1, "c": true}, {"text": "three", "a b": 0, "c": false},'
        ' {"text": "four", "a b": 0, "c": 1}, {"text": "five", "a b": 1, "c": 0.0}]',
        {"labels": ("a b", "c")},
    ),
    "without a header": ("t.tsv", "one, two\tc,a b\nthree\t\nfour\tc\nfive\ta b\n", {"text_column": "1"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_labels_in_a_cell_or_in_a_column_for_each(tmp_path, capsys, name):
    file, text, settings = TABLES[name]
    settings |= {"label_column": "2"} if "text_column" in settings else {}
    settings |= {"label_separator": ";"} if name == "semicolons" else {}
    found = task(tmp_path, file, text, **settings)
    assert found.head == HeadConfig("sequence_classification", ("a b", "c"), problem_type=PROBLEM)
    assert found.read("train") == EXAMPLES
    assert [f.label for f in found.features(EXAMPLES, TOKENIZER, 8, True)] == [[1, 1], [0, 0], [0, 1], [1, 0]]
    _describe(found, found.read("train"), {})
    assert "train: 4 examples: a b 2, c 2; 1 with none of them\n" in capsys.readouterr().out
    # A model's own labels, in its order.
    other = task(tmp_path, file, text, split="dev", model=("c", "a b"), **settings)
    assert [example.label for example in other.read("dev")] == [("c", "a b"), (), ("c",), ("a b",)]


TOXIC = "id,text,toxic,threat\n"
NAMED = {"labels": ("toxic", "threat")}
REFUSED = [
    ("t.csv", 'text,label\nx,"a, b, a"\n', r"line 2: label has 'a' twice; name each label once", {}),
    ("t.csv", 'text,label\nx,b\ny,"a,,b"\n', r"line 3: a label in label is empty", {}),
    ("t.csv", 'text,label\nx,b\ny,"a,"\n', r"line 3: a label in label is empty", {}),
    (
        "t.csv",
        'text,label\nx,"a, b"\ny,A\n',
        r"line 3: the label 'A' is much like 'a' of .*line 2; .*--task.labels",
        {},
    ),
    ("t.csv", 'text,label\nx,"a, b"\ny,NaN\n', r"line 3: the label 'NaN' looks like a missing value", {}),
    ("t.csv", "text,label\nx,a\ny,\u200bb\n", r"line 3: the label .* invisible", {}),
    ("t.csv", "text,label\nx,\ny,\n", r"no row has a label in column 'label'; .*--task.label-column", {}),
    ("t.tsv", "text\tlabel\nx\ta;b\ny\tb;a\n", r"line 2: the label 'a;b' holds ';'; .*--task.label-separator ';'", {}),
    ("t.tsv", "text\tlabel\nx\t['a', 'b']\n", r"line 2: label is .*isn't JSON; write it as \[\"a\", \"b\"\]", {}),
    ("t.csv", "text,label\n" + "".join(f"{i},t {i}\n" for i in range(30)), r"30 different labels in 30 rows", {}),
    ("t.csv", "text,label\n ,a\n", r"line 2: text is empty", {}),
    ("t.jsonl", '{"text": "x", "label": null}\n', r"line 1: label is null; write \[\] where no label is right", {}),
    ("t.jsonl", '{"text": "x", "label": NaN}\n', r"line 1: label is NaN; write \[\]", {}),
    ("t.jsonl", '{"text": "x", "label": ["a", null]}\n', r"line 1: a label in label is null, must be text", {}),
    ("t.jsonl", '{"text": "x", "label": ["a", " "]}\n', r"line 1: a label in label is empty", {}),
    ("t.jsonl", '{"text": "x", "label": {"a": 1}}\n', r"line 1: a label in label is {\"a\": 1}, must be text", {}),
    ("t.jsonl", '{"text": "x"}\n', r"line 1: has no column 'label', only text; .*0 and 1, name all labels", {}),
    ("t.csv", TOXIC + "1,x,0,1\n", r"line 1: has no column 'label', .*0 and 1, name all labels: --task.labels A B", {}),
    ("t.csv", TOXIC + "1,x,0,1\n2,y,0,2\n", r'line 3: threat is "2", must be 1 where .* else 0; correct it', NAMED),
    ("t.csv", TOXIC + "1,x,0,\n", r'line 2: threat is "", must be 1', NAMED),
    ("t.csv", "text,toxic\nx,1\n", r"line 2: has no 'threat', only text, toxic", NAMED),
    ("t.csv", "text,label\nx,toxic\ny,rude\n", r"line 3: label 'rude' in column label is none of task.labels", NAMED),
    ("t.csv", "1,x\n2,y\n", r"t\.csv, line 1: has no column 'text', only 1, x", {}),
    (
        "t.csv",
        "review,sentiment\nx,a\ny,a\n",
        r"line 1: looks like a header",
        {"text_column": "1", "label_column": "2"},
    ),
]


@pytest.mark.parametrize(("name", "text", "message", "settings"), REFUSED)
def test_mistakes_are_named_with_file_line_and_remedy(tmp_path, name, text, message, settings):
    with pytest.raises(InputError, match=message) as error:
        task(tmp_path, name, text, **settings).read("train")
    assert "\n" not in str(error.value) and str(tmp_path / name) in str(error.value)


def test_labels_that_are_named_or_a_models_are_the_only_ones(tmp_path):
    (tmp_path / "train.csv").write_text('text,label\nx,"a, b"\n')
    train = {"train": str(tmp_path / "train.csv")}
    with pytest.raises(InputError, match=r"dev\.csv, line 2: label 'c' in column label is none of the training set's"):
        task(tmp_path, "dev.csv", 'text,label\nx,"a, c"\n', split="dev", **train).read("dev")
    with pytest.raises(InputError, match=r"task.labels: are a, b, the model's a, c; leave them out"):
        _ = make(TaskConfig("multi_label", labels=("a", "b")), ("a", "c")).head
    assert make(TaskConfig("multi_label", **train, labels=("NaN", "A", "a", "b"))).read("train")[0].label == ("a", "b")
    for changes, message in (
        ({"name": "multi_label", "label_separator": ""}, "task.label_separator: is empty"),
        ({"name": "multi_label", "label_column": "text"}, "task.label_column: is 'text', which is another column"),
    ):
        with pytest.raises(InputError, match=message):
            FinetuneConfig(task=TaskConfig(**changes)).validate()


def test_test_files_may_hide_labels(tmp_path, capsys):
    def labels(text: str, **settings) -> list:
        found = task(tmp_path, "t.csv", text, split="test", model=("toxic", "threat"), **settings)
        return [example.label for example in found.read("test")]

    assert labels("id,text\n1,x\n") == [None]
    assert labels("text,label\nx,\ny, \n") == [None, None]
    assert labels('text,label\nx,\ny,toxic\nz,-1\nw,"threat,toxic"\n') == [(), ("toxic",), None, ("toxic", "threat")]
    assert not capsys.readouterr().err.count("no column 'label' for scores, but threat")
    assert labels("text,toxic,threat\nx,-1,-1\ny,0,0\nz,,\nw,0,1\n") == [None, (), None, ("threat",)]
    assert "no column" not in capsys.readouterr().err
    assert labels("text,tags\nx,toxic\n") == [None]
    assert "no column 'label' for scores, but tags; --task.label-column names it" in capsys.readouterr().err
    with pytest.raises(InputError, match='line 2: threat is "-1", must be 1'):
        labels("text,toxic,threat\nx,1,-1\n")


# ---- Scores ---------------------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
SCORED = [
    *((rng.random((n, k)) < share, rng.random((n, k))) for n, k, share in ((1, 1, 0.5), (5, 3, 0.5), (400, 7, 0.1))),
    (rng.random((50, 4)) < 0.4, rng.integers(0, 4, (50, 4)) / 3),  # Ties, and scores at the threshold.
    (np.zeros((4, 3), bool), rng.random((4, 3))),
    (np.ones((4, 3), bool), rng.random((4, 3))),
    (np.eye(3, dtype=bool), np.zeros((3, 3))),
    (np.array([[True, False, False]]), np.array([[0.9, 0.1, 0.2]])),  # Two labels that nothing has.
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("gold", "scores"), SCORED)
def test_scores_are_scikit_learns(gold, scores):
    names = tuple("abcdefg"[: gold.shape[1]])
    found = make(TaskConfig("multi_label"), names)
    examples = [Example(str(i), ("x",), tuple(np.array(names)[row].tolist())) for i, row in enumerate(gold)]
    with np.errstate(divide="ignore"):
        logits = list(np.log(scores) - np.log1p(-scores))
    predicted = scores >= 0.5
    if gold.shape[1] == 1:  # Of one column alone scikit-learn takes a binary classification.
        binary = reference.f1_score(gold[:, 0], predicted[:, 0])
        expected = {"exact": np.mean(gold == predicted), "lrap": 1, "macro_f1": binary, "micro_f1": binary}
    else:
        expected = {
            "exact": reference.accuracy_score(gold, predicted),
            "lrap": reference.label_ranking_average_precision_score(gold, scores),
            **{f"{average}_f1": reference.f1_score(gold, predicted, average=average) for average in ("macro", "micro")},
        }
    unknown = Example("n", ("x",), None)
    predictions = found.predict([*examples, unknown], [], [*logits, logits[0]])
    assert found.metrics([*examples, unknown], predictions) == pytest.approx({n: 100 * v for n, v in expected.items()})
    assert found.metrics([unknown], predictions[:1]) == {} and found.best_by == "micro_f1"
    assert metrics.label_ranking_average_precision(gold, scores) == pytest.approx(expected["lrap"])


# ---- Learning -------------------------------------------------------------------------------------------------------


def test_loss_and_gradients_are_torchs_and_packing_changes_nothing():
    model = heads.TINY
    head = HeadConfig("sequence_classification", heads.LABELS, problem_type=PROBLEM)
    theirs = heads.torch_model(model, head, "BertForSequenceClassification")
    theirs.config.problem_type = PROBLEM
    params, draw = heads.params_of(theirs, model, head), np.random.default_rng(0)
    features = []
    for number, length in enumerate(draw.integers(3, 40, 9).tolist()):
        ids, types = draw.integers(5, 1000, length).tolist(), [int(i > length // 2) for i in range(length)]
        features.append(Feature(ids, types, draw.integers(0, 2, 3).astype(float).tolist(), number))
    rows = torch_finetune.collate([vars(feature) for feature in features], "classify")
    found = theirs(**rows)
    found.loss.backward()

    batches, ours = Batches(features, 9, head, 0), make_model(model, head)
    (batch,) = batches.train(0, 0, 1, lambda size: (range(size),))
    assert (batch["first_tokens"] > 0).any() and batch["labels"].shape[-1] == 3
    counts = HeadObjective(ours).counts(batch)["label"]
    loss = lambda params: HeadObjective(ours).sums(params, (), batch)["label_loss"] / counts  # noqa: E731
    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    assert value == pytest.approx(found.loss.item(), rel=1e-5)
    logits = heads.engine_of(ours, params).logits(features)
    np.testing.assert_allclose(logits, found.logits.detach(), atol=1e-4)

    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    expected = heads.params_of(theirs, model, head)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest, err_msg=path_name(path)),
        gradients,
        expected,
    )


def write_table(file, count: int, seed: int) -> None:
    """Which of a dog, a king and Spain a text is about; none is among them."""
    draw, lines = random.Random(seed), ["text\ttopics"]
    for _ in range(count):
        about = [word for word in ("dog", "king", "spain") if draw.random() < 0.4]
        lines.append(f"the {' '.join(['bird', *about])} watches in a bird\t{','.join(about)}")
    file.write_text("\n".join(lines) + "\n")


def test_from_a_table_to_scores_pages_and_transformers(tmp_path, capsys):
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    # Weights as far apart as those of a model that has learned: from 0.02 on, one so narrow would learn for long.
    model = model_preset("tiny", vocab_size=TOKENIZER.vocab_size, initializer_range=0.2, **sizes)
    head = HeadConfig("encoder")
    params = init_params(make_model(model, head), 0)
    pretrained.save(pretrained.Pretrained(model, head, TOKENIZER, params, Folder("")), tmp_path / "init")
    for seed, split in enumerate(("train", "dev", "test")):
        write_table(tmp_path / f"{split}.tsv", 640 if split == "train" else 30, seed)
    named = ["--task.label-column", "topics", "--task.name", "multi_label"]
    tables = [x for split in ("train", "dev", "test") for x in (f"--task.{split}", str(tmp_path / f"{split}.tsv"))]
    how = ["--sequence-length", "32", "--dropout", "0", "--batch-size", "8"]

    def finetune(init: str, workdir: str, rate: str, epochs: str) -> None:
        run = ["finetune", "--init", str(tmp_path / init), "--workdir", str(tmp_path / workdir), *named, *tables, *how]
        assert main([*run, "--optimizer.learning-rate", rate, "--epochs", epochs]) == 0

    finetune("init", "run", "2e-3", "3")
    assert "dev_micro_f1" in capsys.readouterr().out
    finetune("run", "still", "0", "0.02")  # A model with the same labels keeps its head.
    heads.assert_equal(*(pretrained.read(tmp_path / folder).params for folder in ("run", "still")))

    evaluate = ["evaluate", "--model", str(tmp_path / "run"), "--output", str(tmp_path / "scores")]
    assert main([*evaluate, *tables[2:]]) == 0
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "scores/test/predictions.jsonl").read_text().splitlines()]
    labels = ["dog", "king", "spain"]
    gold, predicted = ([[x in row[name] for x in labels] for row in rows] for name in ("gold", "predicted"))
    assert scores["test_micro_f1"] == pytest.approx(100 * reference.f1_score(gold, predicted, average="micro"))
    assert scores["dev_micro_f1"] > 95
    assert [row["right"] for row in rows] == [a == b for a, b in zip(gold, predicted, strict=True)]
    likely = [np.prod([max(p, 1 - p) for p in row["probabilities"].values()]) for row in rows]
    np.testing.assert_allclose([row["confidence"] for row in rows], likely)
    page = (tmp_path / "scores/test/page.html").read_text()
    counts = "<td>dog</td><td>{}</td><td>{}</td>".format(*(sum(row[0] for row in x) for x in (gold, predicted)))
    assert "Label by label" in page and counts in page and "What was taken for what" not in page
    with open(tmp_path / "scores/test/test.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [json.loads(line["prediction"]) for line in written] == [row["predicted"] for row in rows]
    np.testing.assert_allclose(
        [[float(line[label]) for label in labels] for line in written],
        [list(row["probabilities"].values()) for row in rows],
        atol=1e-6,
    )

    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "hf"]) == 0
    classify = pipeline("text-classification", model=str(tmp_path / "out"), top_k=None)
    assert classify.model.config.problem_type == PROBLEM
    for row in rows[:8]:
        theirs = {one["label"]: one["score"] for one in classify([row["text"]])[0]}
        assert theirs == pytest.approx(row["probabilities"], abs=1e-4)
    capsys.readouterr()
    assert main(["predict", "classify", "--model", str(tmp_path / "run"), rows[0]["text"]]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["label"] == rows[0]["predicted"]
    assert printed["probabilities"] == pytest.approx(rows[0]["probabilities"], abs=1e-5)


def test_the_page_shows_what_was_missed(tmp_path):
    found = make(TaskConfig("multi_label"), ("<a>", "b", "c"))
    examples = [Example("0", ("x", "y"), ("<a>", "b")), Example("1", ("z", "w"), ()), Example("2", ("u", "v"), None)]
    predicted = np.array([[0.9, 0.2, 0.1], [0.1, 0.6, 0.1], [0.1, 0.1, 0.1]])
    predictions = found.predict(examples, [], list(np.log(predicted / (1 - predicted))))
    write_page(tmp_path / "page.html", "t", {}, found.rows(examples, predictions), found.head.labels)
    page = (tmp_path / "page.html").read_text()
    assert "<td>&lt;a&gt;</td><td>1</td><td>1</td><td>100.0%</td><td>100.0%</td><td>100.0%</td>" in page
    assert "<td>b</td><td>1</td><td>1</td><td>0.0%</td><td>0.0%</td><td>0.0%</td>" in page
    assert "<td>c</td><td>0</td><td>0</td><td>–</td><td>–</td><td>–</td>" in page
    assert '&lt;a&gt; 90%, b 20%</span>, predicted <span class="predicted">&lt;a&gt; 90%</span>' in page
    assert '<span class="gold">none</span>, predicted <span class="predicted">b 60%</span>' in page
