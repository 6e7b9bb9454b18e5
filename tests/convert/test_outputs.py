"""What a head's outputs are and are called, as a folder of transformers or sentence-transformers says it."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import assert_equal
from test_labelling import folder_of, lines, named
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    pipeline,
)

import bert_jax
from bert_jax import tasks
from bert_jax.cli.main import main
from bert_jax.config import FinetuneConfig, HeadConfig, InputError, OptimizerConfig, TaskConfig
from bert_jax.convert import huggingface, outputs, pretrained
from bert_jax.convert.origin import FinetuningRun, Folder
from bert_jax.models import HEADS
from bert_jax.runs.evaluation import evaluate_task
from bert_jax.runs.finetuning import finetune

TEXTS = ["the dog watches a bird", "the king of spain", "a bird in spain watches the king of the dog"]
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


def edit(folder, **changes) -> None:
    """Changes config.json; None takes a field away."""
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {name: value for name, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """By the number of labels: the folder, torch's model and its tokenizer."""
    folders = {count: tmp_path_factory.mktemp(f"classifier{count}") for count in (1, 3)}
    return {n: (f, *folder_of(BertForSequenceClassification, f, num_labels=n)) for n, f in folders.items()}


def copy_of(source, folder):
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def scores(folder, tokenizer) -> list[dict[str, float]]:
    """By transformers' pipeline."""
    classify = pipeline("text-classification", model=str(folder), tokenizer=tokenizer, top_k=None)
    return [{one["label"]: one["score"] for one in found} for found in classify(TEXTS)]


def ours(folder) -> list[dict[str, float]]:
    """The same, by what a person gets."""
    with warnings.catch_warnings(action="error"):
        found = bert_jax.load(folder).classify(TEXTS)
    return [one.probabilities or {"LABEL_0": one.label} for one in found]


PROBLEMS = [
    *((1, "regression"), (1, "multi_label_classification"), (3, None)),
    *((3, "single_label_classification"), (3, "multi_label_classification"), (3, "regression")),
]


@pytest.mark.parametrize(("count", "problem_type"), PROBLEMS)
def test_scores_are_those_of_the_pipeline_here_and_where_they_are_exported(
    classifiers, tmp_path, capsys, count, problem_type
):
    source, _, tokenizer = classifiers[count]
    folder = copy_of(source, tmp_path / "source")
    edit(folder, problem_type=problem_type)
    expected = [pytest.approx(one, abs=1e-5) for one in scores(folder, tokenizer)]
    assert ours(folder) == expected
    for form in ("hf", "tf1"):
        assert main(["export", str(folder), str(tmp_path / form), "--format", form]) == 0
        assert main(["import", str(tmp_path / form), str(tmp_path / f"{form}_imported")]) == 0
        assert pretrained.read(tmp_path / f"{form}_imported").head == pretrained.read(folder).head
    assert scores(tmp_path / "hf", tokenizer) == expected

    capsys.readouterr()
    assert main(["predict", "classify", "--model", str(folder), *TEXTS]) == 0
    printed = lines(capsys.readouterr().out)
    assert [line.get("probabilities") or {"LABEL_0": line["label"]} for line in printed] == expected
    values = [list(one.expected.values()) for one in expected]
    if problem_type == "multi_label_classification":
        right = [sorted(label for label, score in one.expected.items() if score >= 0.5) for one in expected]
        assert [line["label"] for line in printed] == right
    elif problem_type == "regression" and count > 1:
        assert [sorted(line["label"]) for line in printed] == [pytest.approx(sorted(v), abs=1e-5) for v in values]


# Where sentence-transformers 6, 4 and 3 say what a cross-encoder applies; and what each applies where nothing is said.
@pytest.mark.parametrize("place", ["config_sentence_transformers.json", "sentence_transformers", "sbert_ce"])
@pytest.mark.parametrize(("count", "activation"), [(1, SIGMOID), (1, IDENTITY), (3, SIGMOID), (3, IDENTITY)])
def test_a_cross_encoder_keeps_its_activation(classifiers, tmp_path, place, count, activation):
    source, model, tokenizer = classifiers[count]
    folder = copy_of(source, tmp_path / "source")
    if place == "config_sentence_transformers.json":
        (folder / place).write_text(json.dumps({"activation_fn": activation, "model_type": "CrossEncoder"}))
    elif place == "sentence_transformers":
        edit(folder, sentence_transformers={"activation_fn": activation, "version": "4.0.1"})
    else:
        edit(folder, sbert_ce_default_activation_function=activation)
    with torch.inference_mode():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    # Several logits as they are are its default, for classes too.
    expected = logits.sigmoid() if activation == SIGMOID else logits.softmax(-1) if count > 1 else logits
    np.testing.assert_allclose([list(one.values()) for one in ours(folder)], expected, atol=1e-5)
    assert main(["export", str(folder), str(tmp_path / "out"), "--format", "hf"]) == 0
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["sentence_transformers"] == {"activation_fn": activation} and "problem_type" not in written
    assert pretrained.read(tmp_path / "out").head == pretrained.read(folder).head


def test_one_output_that_nothing_is_said_of_is_given_as_it_is_and_said(classifiers, tmp_path, capsys):
    folder, model, tokenizer = classifiers[1]
    with torch.inference_mode():
        expected = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits.item()
    with pytest.warns(UserWarning, match='one output, and no problem_type.* "multi_label_classification"'):
        assert bert_jax.load(folder).classify(TEXTS[0]).label == pytest.approx(expected, abs=1e-5)
    assert main(["predict", "classify", "--model", str(folder), TEXTS[0]]) == 0
    assert capsys.readouterr().err.count("no problem_type") == 1
    assert main(["export", str(folder), str(tmp_path / "out"), "--format", "hf"]) == 0
    assert scores(tmp_path / "out", tokenizer) == scores(folder, tokenizer)


LETTERS = {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize(
    "fields",
    [
        {"id2label": {"2": "c", "0": "a", "1": "b"}},
        {"id2label": {"00": "a", "1": "b", " 2": "c"}},
        {"id2label": LETTERS, "label2id": {"a": 2, "b": 1, "c": 0}},
        {"id2label": LETTERS, "num_labels": 3},
        {"id2label": {"0": "a", "1": "b"}, "num_labels": 3},
        {"id2label": {**LETTERS, "3": "d"}, "num_labels": 3},
        {"label2id": {"a": 0, "b": 1, "c": 2}, "num_labels": 3},
        {"id2label": {}, "num_labels": 3},
        {"num_labels": 3},
        {"id2label": {"0": 0, "1": 1, "2": -1}},
    ],
)
def test_names_are_transformers(classifiers, tmp_path, fields):
    folder = copy_of(classifiers[3][0], tmp_path / "source")
    edit(folder, **({"id2label": None, "label2id": None} | fields))
    expected = BertConfig.from_pretrained(folder).id2label
    assert list(pretrained.read(folder).head.labels) == [str(expected[i]) for i in range(3)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("LABEL_0", "LABEL_1", "LABEL_2")),  # transformers takes 2, and fails.
        ({"id2label": LETTERS, "num_labels": 2}, ("a", "b", "c")),  # As its version 4 did; 5 fails.
        ({"id2label": {"0": None, "1": "", "2": "c"}}, ("LABEL_0", "LABEL_1", "c")),
        ({"id2label": {"0": True, "1": False, "2": 1.5}}, ("true", "false", "1.5")),  # As labels in JSON lines.
    ],
)
def test_names_where_transformers_has_none(classifiers, tmp_path, fields, expected):
    folder = copy_of(classifiers[3][0], tmp_path / "source")
    edit(folder, **({"id2label": None, "label2id": None} | fields))
    assert pretrained.read(folder).head.labels == expected


REFUSED = {
    "fewer names": ({"id2label": {"0": "a", "1": "b"}}, "id2label names 2, but the weights are of 3 labels"),
    "more names": ({"id2label": {**LETTERS, "3": "d"}}, "id2label names 4, but the weights are of 3 labels"),
    "both wrong": ({"id2label": {"0": "a"}, "num_labels": 2}, "num_labels is 2 and id2label names 1, but"),
    "number": ({"id2label": None, "num_labels": 7}, "num_labels is 7, but the weights are of 3 labels"),
    "gap": ({"id2label": {"0": "a", "1": "b", "3": "c"}}, "keys are 0, 1, 3, so 2 has no name"),
    "from 1": ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "keys are 1, 2, 3, so 0 has no name; number the 3"),
    "names as keys": ({"id2label": {"a": 0, "b": 1, "c": 2}}, r"id2label is .*; it must be numbers from 0 on"),
    "list": ({"id2label": ["a", "b", "c"]}, "id2label is .*; it must be numbers from 0 on"),
    "no number": ({"num_labels": "three"}, "num_labels is 'three', must be a number from 1 on"),
    "problem": ({"problem_type": "binary"}, "problem_type: is 'binary'; there are single_label_classification, multi"),
    "activation": ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "is torch.*Tanh"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_contradicts_itself_is_refused_in_a_line(classifiers, tmp_path, capsys, name):
    fields, message = REFUSED[name]
    folder = copy_of(classifiers[3][0], tmp_path / "source")
    edit(folder, **fields)
    with pytest.raises(InputError, match=f"config.json: .*{message}" if name != "problem" else message) as error:
        pretrained.read(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (BertForSequenceClassification, {"num_labels": 1, "problem_type": "single_label"}, "one label alone; make it"),
        (BertForQuestionAnswering, {"num_labels": 3}, "the head has 3 outputs, one of question_answering has 2"),
        (BertForTokenClassification, {"num_labels": 4}, "id2label names 3, but the weights are of 4 labels"),
    ],
)
def test_odd_heads_are_refused_in_a_line(tmp_path, kind, fields, message):
    problem = fields.pop("problem_type", None)
    folder_of(kind, tmp_path, **fields)
    edit(tmp_path, **({"problem_type": f"{problem}_classification"} if problem else {"id2label": LETTERS}))
    with pytest.raises(InputError, match=message) as error:
        pretrained.read(tmp_path)
    assert "\n" not in str(error.value)


def test_heads_without_labels_are_whatever_id2label_says(tmp_path):
    """transformers writes two names for them too."""
    folder_of(BertForMultipleChoice, tmp_path)
    edit(tmp_path, id2label=LETTERS, problem_type="regression")
    assert pretrained.read(tmp_path).head == HeadConfig("multiple_choice", dropout=None)


def test_classes_of_one_name_are_not_put_together(classifiers, tmp_path, capsys):
    folder = copy_of(classifiers[3][0], tmp_path / "source")
    edit(folder, id2label={"0": "a", "1": "b", "2": "a"})
    with pytest.raises(InputError, match="more than one class 'a', so they can't be told apart; name each"):
        bert_jax.load(folder).classify(TEXTS)
    assert main(["predict", "classify", "--model", str(folder), TEXTS[0]]) == 2
    assert capsys.readouterr().out == ""
    assert bert_jax.load(folder)(TEXTS).shape == (3, 3)


def test_a_model_without_a_second_segment_reads_no_pairs(tmp_path):
    model, tokenizer = folder_of(BertForSequenceClassification, tmp_path, num_labels=2, type_vocab_size=1)
    with torch.inference_mode():
        expected = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits.softmax(-1)[0].tolist()
    bert = bert_jax.load(tmp_path)
    assert list(bert.classify(TEXTS[0]).probabilities.values()) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InputError, match="token_type_ids: from 0 to 1, the model has 0 to 0"):
        bert.classify(TEXTS[0], TEXTS[1])


# Tags


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    return folder, *folder_of(BertForTokenClassification, folder, num_labels=5)


@pytest.mark.parametrize(
    "labels",
    [
        ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
        ["B-PER", "I-PER", "B-LOC", "I-LOC", "O"],
        ["I-PER", "I-LOC", "O", "I-ORG", "I-MISC"],
        ["O", "PER", "LOC", "ORG", "MISC"],
        ["PER", "LOC", "ORG", "MISC", "O"],
        ["DET", "NOUN", "VERB", "ADP", "X"],
        [f"LABEL_{i}" for i in range(5)],
        ["OTHER", "B-PER", "I-PER", "X", "[CLS]"],
        ["0", "1", "2", "3", "4"],
        ["O", "O", "O", "PER", "PER"],
    ],
)
def test_spans_are_those_of_transformers_pipeline(tagger, tmp_path, labels):
    source, model, tokenizer = tagger
    folder = copy_of(source, tmp_path / "source")
    edit(folder, **named(labels))
    model.config.id2label = dict(enumerate(labels))
    theirs = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    found = bert_jax.load(folder).tag(TEXTS)
    for text, spans in zip(TEXTS, found, strict=True):
        expected = [(one["entity_group"], one["start"], one["end"]) for one in theirs(text)]
        assert [(span.type, span.start, span.end) for span in spans] == expected
    assert main(["export", str(folder), str(tmp_path / "out"), "--format", "hf"]) == 0
    assert bert_jax.load(tmp_path / "out").tag(TEXTS) == found


# Training and evaluation


def test_a_task_takes_a_model_with_outputs_of_its_kind_alone(classifiers, tmp_path):
    (tmp_path / "dev.tsv").write_text("text\tlabel\n" + "".join(f"{text}\tLABEL_1\n" for text in TEXTS))
    (tmp_path / "values.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{i}\n" for i, text in enumerate(TEXTS)))
    found = {count: pretrained.read(folder) for count, (folder, *_) in classifiers.items()}

    def evaluated(name: str, count: int, problem_type: str | None) -> dict:
        head = dataclasses.replace(found[count].head, problem_type=problem_type)
        file = tmp_path / ("dev.tsv" if name == "classification" else "values.tsv")
        config = FinetuneConfig(task=TaskConfig(name, dev=str(file)), sequence_length=32)
        return evaluate_task(dataclasses.replace(found[count], head=head), config, None)

    for problem_type, meaning in (("multi_label_classification", "labels"), ("regression", "values")):
        with pytest.raises(InputError, match=f"whose outputs are classes, this one's are {meaning} .{problem_type}."):
            evaluated("classification", 3, problem_type)
        with pytest.raises(InputError, match="is a regression, of one value, but the model has 3 outputs"):
            evaluated("regression", 3, problem_type)
    with pytest.raises(InputError, match="whose outputs are values, this one's are labels"):
        evaluated("regression", 1, "multi_label_classification")
    assert evaluated("classification", 3, None) == evaluated("classification", 3, "single_label_classification")
    assert evaluated("regression", 1, None) == evaluated("regression", 1, "regression")


def test_a_page_of_tags_has_no_matrix_of_classes(tagger, tmp_path):
    (tmp_path / "dev.tsv").write_text("the\tLABEL_0\ndog\tLABEL_1\n")
    config = FinetuneConfig(task=TaskConfig("ner", dev=str(tmp_path / "dev.tsv")), sequence_length=32)
    scores = evaluate_task(pretrained.read(tagger[0]), config, tmp_path / "out")
    page = (tmp_path / "out/dev/page.html").read_text()
    assert "dev_accuracy" in scores and "accuracy" in page and "What was taken for what" not in page


def test_a_run_takes_the_head_of_a_model_with_the_same_outputs(tmp_path, classifiers):
    folder, *_ = classifiers[3]
    rows = "".join(f"{text}\tLABEL_{i}\n" for i, text in enumerate(TEXTS))
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + rows)
    still = OptimizerConfig(learning_rate=0.0, decay="from_warmup")
    config = FinetuneConfig(task=TaskConfig(train=str(tmp_path / "train.tsv")), sequence_length=32, epochs=1)
    source = pretrained.read(folder)
    for problem_type, taken in (("single_label_classification", True), ("multi_label_classification", False)):
        edit(folder, problem_type=problem_type)
        finetune(dataclasses.replace(config, optimizer=still), folder, tmp_path / problem_type)
        after = pretrained.read(tmp_path / problem_type)
        assert_equal(after.params["bert"], source.params["bert"])
        same = np.array_equal(
            after.params["classifier"]["dense"]["kernel"], source.params["classifier"]["dense"]["kernel"]
        )
        assert same == taken and after.head.outputs == "classes"
    edit(folder, problem_type=None)


def test_a_regression_of_ours_says_so_to_all_readers(tmp_path, classifiers):
    folder, *_ = classifiers[1]
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{i}\n" for i, text in enumerate(TEXTS)))
    config = FinetuneConfig(task=TaskConfig("regression", train=str(tmp_path / "train.tsv")))
    source = pretrained.read(folder)
    found = dataclasses.replace(source, head=tasks.make(config.task).head, origin=FinetuningRun(config, 1, {}, None))
    (tmp_path / "out").mkdir()
    huggingface.write(tmp_path / "out", found.model, found.head, found.params)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert (written["problem_type"], written["sentence_transformers"]) == ("regression", {"activation_fn": IDENTITY})
    # A run from before heads said it; of another's folder it isn't known.
    before = dataclasses.replace(found, head=HeadConfig("sequence_classification", ("label",)))
    for name, origin in (("ours", found.origin), ("another's", Folder("elsewhere"))):
        pretrained.save(dataclasses.replace(before, origin=origin), tmp_path / name)
    assert pretrained.read(tmp_path / "ours").head == found.head
    assert pretrained.read(tmp_path / "another's").head == before.head


@pytest.mark.parametrize(("claimed", "rows"), [({"num_labels": 10**12}, None), ({}, 10**12)])
def test_as_many_labels_as_a_file_claims_are_not_named(claimed, rows):
    """The head's bias may be missing, or be of no bytes: [10**12, 0]."""
    with pytest.raises(InputError, match=r"config.json: its classifier is of 1,000,000,000,000 labels, must be of at"):
        outputs.read(HEADS["sequence_classification"], claimed, rows, Path("config.json"))
