"""SWAG and one's own questions: files, pairs against transformers, what is handed in."""

import json
import re

import numpy as np
import pandas
import pytest

from bert_jax import tasks
from bert_jax.config import InputError, TaskConfig, TokenizerConfig
from bert_jax.data import tokenizers
from bert_jax.tasks import multiple_choice

TOKENIZER = tokenizers.WordPiece([*tokenizers.SPECIAL, *"abcdefghij", "##x", "who", "?", "."], True)
SWAG = ''',video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label
0,v1,18313,a b. c,a b.,c,gold,"d, e",f,"g ""h""",i,2
1,v2,18314,"b
a. d",b a.,d,gen,a,b,c,d,0
'''


def of(tmp_path, name: str = "swag", file: str = "train.csv", text: str = SWAG, **changes):
    (tmp_path / file).write_text(text, encoding="utf-8")
    return multiple_choice.MultipleChoice(TaskConfig(name=name, train=str(tmp_path / file), **changes))


def pieces(ids: list[int]) -> str:
    return " ".join(TOKENIZER.pieces()[i] for i in ids)


def test_swag(tmp_path):
    of(tmp_path)
    (tmp_path / "test.csv").write_text(re.sub(r",(label|\d)$", "", SWAG, flags=re.MULTILINE))
    task = multiple_choice.MultipleChoice(TaskConfig(name="swag", folder=str(tmp_path)))
    assert (task.dev_splits, task.test_splits, task.head.kind) == ((), ("test",), "multiple_choice")
    examples = task.read("train")
    assert [(example.context, example.label) for example in examples] == [("a b.", 2), ("b a.", 0)]
    assert examples[0].choices == ["c d, e", "c f", 'c g "h"', "c i"]
    features = task.features(examples, TOKENIZER, 32, training=True)
    assert [pieces(ids) for ids in features[1].input_ids] == [f"[CLS] b a . [SEP] d {c} [SEP]" for c in "abcd"]
    assert features[1].token_type_ids == [[0, 0, 0, 0, 0, 1, 1, 1]] * 4
    assert [(feature.label, feature.example) for feature in features] == [(2, 0), (0, 1)]
    assert {len(ids) for ids in task.features(examples, TOKENIZER, 6, training=True)[0].input_ids} == {6}
    # Without labels, as its test file.
    test = task.read("test")
    chosen = task.predict(test, features, [np.array([0, 2.0, 1, 0]), np.array([-1e4, 0, 0, 1e4])])
    assert task.metrics(test, chosen) == {}
    (file,) = task.submit(tmp_path / "out", "test", test, chosen)
    assert file.read_text() == ",pred\n0,1\n1,3\n"


def test_scores_and_rows(tmp_path):
    task = of(tmp_path)
    examples = task.read("train")
    chosen = task.predict(examples, [], [np.array([0.0, 0, 1, 0]), np.array([0.0, 1, 0, 0])])
    assert task.metrics(examples, chosen) == {"accuracy": 50.0}
    assert np.sum(chosen[0].probabilities) == pytest.approx(1)
    first, second = task.rows(examples, chosen)
    assert first == {
        "id": "0",
        "text": "a b.",
        "gold": 'c g "h"',
        "predicted": 'c g "h"',
        "right": True,
        "confidence": pytest.approx(np.e / (np.e + 3)),
    }
    assert (second["gold"], second["predicted"], second["right"]) == ("d a", "d b", False)


def test_files_of_ones_own(tmp_path):
    lines = [
        {"context": "a b", "question": "who?", "choices": ["a", "b", "c"], "label": 1, "n": "x"},
        {"context": "c", "choices": ["d", "e", "f"], "label": "0", "n": "y"},
    ]
    text = "\n".join(map(json.dumps, lines))
    task = of(tmp_path, "multiple_choice", "train.jsonl", text, id_column="n")
    examples = task.read("train")
    assert [example.choices for example in examples] == [["who? a", "who? b", "who? c"], ["d", "e", "f"]]
    table = "n,context,question,choice1,choice0,choice10,label\nx,a b,who?,b,a,c,1\ny,c,,e,d,f,0\n"
    again = of(tmp_path, "multiple_choice", "train.csv", table, id_column="n")
    assert again.read("train") == examples
    chosen = [multiple_choice.Chosen(2, [0, 0, 1])] * 2
    (file,) = task.submit(tmp_path, "dev", examples, chosen)
    assert file.read_text() == "index,prediction\nx,2\ny,2\n"


OWN = '{"context": "a", "choices": ["b", "c"], "label": 0}\n'


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("own.jsonl", OWN + '{"context": "a", "choi', "line 2: not JSON"),
        ("own.jsonl", OWN + OWN.replace('"c"', '"c", "d"'), "line 2: choices: 3, but 2 in the first example"),
        ("own.jsonl", OWN + OWN.replace("0}", "2}"), "line 2: label is 2, must be the right choice's index, 0 to 1"),
        ("own.jsonl", OWN + OWN.replace("0}", "true}"), "line 2: label is True"),
        ("own.jsonl", OWN + OWN.replace("0}", "-1}"), "line 2: label is -1"),
        ("own.jsonl", OWN + OWN.replace('"label": 0', '"gold": 0'), "line 2: has no 'label'"),
        ("own.jsonl", OWN + OWN.replace("context", "text"), "line 2: an example has a context.*this has text, choices"),
        ("own.jsonl", OWN + OWN.replace('["b", "c"]', '"b"'), "line 2: an example has .* two or more choices"),
        ("own.jsonl", OWN + OWN.replace('"c"', '" "'), "line 2: context or a choice is ' '; give each a text"),
        ("own.jsonl", OWN + OWN.replace('"c"', "3"), "line 2: context or a choice is 3"),
        ("own.jsonl", OWN + OWN.replace("0}", '0, "question": 3}'), "line 2: question is 3; give it a text, or none"),
        ("swag.csv", SWAG.replace(",d,0", ",d"), "line 3: has 11 columns, the first line has 12"),
        ("swag.csv", SWAG.replace("ending", "end"), "line 2: an example has a context"),
        ("swag.csv", SWAG + '2,"cut', "line 5: not CSV"),
        ("swag.csv", "", "holds no rows"),
        ("swag.csv", None, "no such file"),
    ],
)
def test_malformed_files_are_named(tmp_path, file, text, message):
    task = of(tmp_path, "multiple_choice", file, text or "")
    if text is None:
        (tmp_path / file).unlink()
    with pytest.raises(InputError, match=f"{file}.*{message}") as error:
        task.read("train")
    assert "\n" not in str(error.value)


def test_a_question_that_pandas_has_none_of():
    rows = pandas.DataFrame(
        {"context": ["a", "a"], "question": ["who", None], "choice0": "b", "choice1": "c", "label": 0}
    )
    task = tasks.make(TaskConfig("multiple_choice"), train=rows.astype({"question": object}).replace({None: np.nan}))
    assert [example.choices for example in task.read("train")] == [["who b", "who c"], ["b", "c"]]


def test_a_split_without_a_file_is_named(tmp_path):
    task = multiple_choice.MultipleChoice(TaskConfig(name="swag", folder=str(tmp_path)))
    with pytest.raises(InputError, match=r"task.dev: names no file, and task.folder .* holds no val.csv"):
        task.read("dev")


def test_pairs_equal_transformers(real_data, tmp_path):
    from transformers import BertTokenizer

    vocab = str(real_data / "vocab/bert-base-uncased-vocab.txt")
    tokenizer, theirs = tokenizers.load(vocab, TokenizerConfig()), BertTokenizer(vocab)
    lines = (real_data / "corpus/wiki_en.txt").read_text(encoding="utf-8")[:400_000].split("\n")
    lines = [line for line in lines if len(line) > 40]
    rows = [
        {"context": one, "choices": [two[:100], two, f"{one} {two}"], "label": 0}
        for one, two in zip(lines[:100], lines[100:200], strict=True)
    ]
    task = of(tmp_path, "multiple_choice", "own.jsonl", "\n".join(map(json.dumps, rows)))
    examples = task.read("train")
    for row, feature in zip(rows, task.features(examples, tokenizer, 128, training=True), strict=True):
        expected = theirs([row["context"]] * 3, [c.strip() for c in row["choices"]], truncation=True, max_length=128)
        assert feature.input_ids == expected["input_ids"]
        assert feature.token_type_ids == expected["token_type_ids"]
