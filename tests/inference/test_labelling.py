"""Classes, tagged spans and answers of texts, against transformers' models with the same weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from seqeval.metrics.sequence_labeling import get_entities
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizerFast,
)

import bert_jax
from bert_jax.cli.main import main
from bert_jax.config import FinetuneConfig, InputError, TaskConfig
from bert_jax.convert.origin import FinetuningRun
from bert_jax.inference.bert import Bert

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "dog",
    "king",
    "of",
    "spain",
    "watches",
    "a",
    "bird",
    "in",
]
PIECES += ["##s", "(", ")", ".", ",", "北", "京"]
TEXTS = ["The dogs of Spain watches a bird.", "", "(the king, in 北京)", "a dog in spain " * 30]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def folder_of(kind: type, path, **options) -> tuple:
    """A small model of transformers' in a folder, with weights that tell texts apart."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    model = kind(BertConfig(vocab_size=len(PIECES), max_position_embeddings=64, **sizes, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    tokenizer = BertTokenizerFast(str(path / "vocab.txt"))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model, tokenizer


def named(names: list[str]) -> dict:
    return dict(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    return folder, *folder_of(BertForSequenceClassification, folder, **named(["no", "perhaps", "yes"]))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    return folder, *folder_of(BertForTokenClassification, folder, **named(TAGS))


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answerer")
    return folder, *folder_of(BertForQuestionAnswering, folder)


def test_classes_are_torchs(classifier, capsys, tmp_path):
    folder, model, tokenizer = classifier
    texts, pairs = [TEXTS[0], TEXTS[2], "a bird"], ["the king", "", "dog dog"]
    with torch.inference_mode():
        expected = model(**tokenizer(texts, pairs, padding=True, return_tensors="pt")).logits.softmax(-1).numpy()
    bert = bert_jax.load(folder)
    found = bert.classify(texts, pairs)
    np.testing.assert_allclose([list(one.probabilities.values()) for one in found], expected, atol=1e-5)
    assert [one.label for one in found] == [bert.head.labels[i] for i in expected.argmax(-1)]
    assert bert.classify(texts[0], pairs[0]).label == found[0].label and bert.classify([]) == []
    with pytest.raises(InputError, match="needs a model of kind token_classification; this is one of sequence_class"):
        bert.tag("a dog")

    # Lines with and without a second text, in their order.
    (tmp_path / "in.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(texts, pairs, strict=True)) + "the dog\n")
    assert main(["predict", "classify", "--model", str(folder), "--input", str(tmp_path / "in.tsv")]) == 0
    printed = lines(capsys.readouterr().out)
    assert [line["label"] for line in printed] == [one.label for one in found] + [bert.classify("the dog").label]
    assert (
        printed[1]["pair"] == ""
        and "pair" not in printed[3]
        and list(printed[0]["probabilities"]) == ["no", "perhaps", "yes"]
    )


def test_a_regression_gives_its_value(tmp_path, capsys):
    model, tokenizer = folder_of(BertForSequenceClassification, tmp_path, num_labels=1)
    with torch.inference_mode():
        expected = model(**tokenizer("the dog", return_tensors="pt")).logits.item()
    assert bert_jax.load(tmp_path).classify("the dog").label == pytest.approx(expected, abs=1e-5)
    assert main(["predict", "classify", "--model", str(tmp_path), "the dog"]) == 0
    assert lines(capsys.readouterr().out) == [{"text": "the dog", "label": pytest.approx(expected, abs=1e-5)}]


def test_spans_are_those_of_torchs_tags(tagger, capsys, tmp_path):
    folder, model, tokenizer = tagger
    bert = bert_jax.load(folder)
    found = bert.tag(TEXTS)
    assert found[1] == [] and found[3]  # An empty text; one that is longer than the model reads.
    for text, spans in zip(TEXTS[:3], found, strict=False):
        encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        places = encoded.pop("offset_mapping")[0].tolist()
        with torch.inference_mode():
            probabilities = model(**encoded).logits[0].softmax(-1)
        words = [i for i, piece in enumerate(encoded["input_ids"][0]) if i and not PIECES[piece].startswith("##")][:-1]
        tags = [TAGS[probabilities[i].argmax()] for i in words]
        expected = []
        for kind, first, last in get_entities(tags):
            following = words[last + 1] if last + 1 < len(words) else len(places) - 1
            start, end = places[words[first]][0], places[following - 1][1]
            probability = min(probabilities[words[i]].max().item() for i in range(first, last + 1))
            expected.append((kind, text[start:end], start, end, pytest.approx(probability, abs=1e-5)))
        assert [dataclasses.astuple(span) for span in spans] == expected
    assert found[0] and found[2]

    assert main(["predict", "tag", "--model", str(folder), TEXTS[0]]) == 0
    (line,) = lines(capsys.readouterr().out)
    assert [span["text"] for span in line["spans"]] == [span.text for span in found[0]]
    (tmp_path / "in.tsv").write_text("a dog\nthe king\tking\n")
    for arguments, message in (
        (["--predicate", "dog", TEXTS[0]], "only a model of semantic roles"),
        (["--input", str(tmp_path / "in.tsv")], "in.tsv, line 2: 'king': only a model of semantic roles"),
    ):
        assert main(["predict", "tag", "--model", str(folder), *arguments]) == 2
        assert message in capsys.readouterr().err


def test_roles_need_a_predicate_of_the_text(tagger):
    found = bert_jax.convert.pretrained.read(tagger[0])
    run = FinetuneConfig(task=TaskConfig(name="srl"))
    bert = Bert(dataclasses.replace(found, origin=FinetuningRun(run, 1, {}, None)))
    with pytest.raises(InputError, match="give one, a word that is in the text"):
        bert.tag("the dog watches a bird")
    with pytest.raises(InputError, match="'runs' isn't a word of it"):
        bert.tag("the dog watches a bird", "runs")
    with pytest.raises(InputError, match="2 texts but 1 to go with them"):
        bert.tag(["the dog", "a bird"], ["dog"])
    assert bert.tag("the dog watches a bird", "watches") != bert.tag("the dog watches a bird", "dog")


def test_answers_are_the_best_spans_of_torch(answerer, capsys, tmp_path):
    folder, model, tokenizer = answerer
    questions = ["the king of?", "Who watches"]
    contexts = ["The dogs, of Spain (in 北京), watches a bird.", "the King"]
    bert = bert_jax.load(folder)
    found = bert.answer(questions, contexts)
    for question, context, one in zip(questions, contexts, found, strict=True):
        encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        places = encoded.pop("offset_mapping")[0].tolist()
        with torch.inference_mode():
            outputs = model(**encoded)
        second = [i for i, s in enumerate(encoded.sequence_ids(0)) if s == 1]
        starts, ends = outputs.start_logits[0], outputs.end_logits[0]
        best = max(((i, j) for i in second for j in second if i <= j < i + 30), key=lambda p: starts[p[0]] + ends[p[1]])
        start, end = places[best[0]][0], places[best[1]][1]
        assert (one.text, one.start, one.end) == (context[start:end], start, end)
    long = bert.answer(questions[0], "a bird in spain " * 100)
    assert long.text and long.text == ("a bird in spain " * 100)[long.start : long.end]

    predict = ["predict", "answer", "--model", str(folder)]
    assert main([*predict, "--context", contexts[0], questions[0]]) == 0
    (line,) = lines(capsys.readouterr().out)
    assert (line["question"], line["answer"], line["start"]) == (questions[0], found[0].text, found[0].start)
    (tmp_path / "in.tsv").write_text(f"{questions[0]}\t{contexts[0]}\nno context\n")
    assert main([*predict, "--input", str(tmp_path / "in.tsv")]) == 2
    error = capsys.readouterr().err
    assert "in.tsv, line 2: 'no context': must be a question, a tab" in error and error.count("\n") == 1
