"""SQuAD's files: what is malformed is named, what the original skips is counted."""

import json
import runpy
from pathlib import Path

import pytest

from bert_jax.config import InputError, TaskConfig
from bert_jax.tasks.squad import Squad


def task(**changes) -> Squad:
    return Squad(TaskConfig(name="squad", **changes))


def write(path: Path, *paragraphs: dict) -> str:
    path.write_text(json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": list(paragraphs)}]}))
    return str(path)


def paragraph(context="The man went.", question="Who?", id="1", text="man", start=4, **more) -> dict:
    answers = [{"text": text, "answer_start": start}]
    return {"context": context, "qas": [{"question": question, "id": id, "answers": answers, **more}]}


BAD = [
    (paragraph(context=""), "data[0].paragraphs[0]: its context is empty"),
    (paragraph(question=" "), "data[0].paragraphs[0].qas[0]: its question is empty"),
    (paragraph(question=None), "qas[0]: has no 'question' that is a text"),
    (paragraph(question="\ud800?"), "qas[0]: its question has half a character at 0"),
    (paragraph(id="\ud800"), "qas[0]: its id has half a character at 0"),
    (paragraph(text="a\ud800"), "qas[0].answers[0]: its text has half a character at 1"),
    (paragraph(id=7), "qas[0]: has no 'id' that is a text"),
    (paragraph(start="4"), "qas[0].answers[0]: has no 'answer_start' that is a whole number"),
    (paragraph(answers=None), "qas[0]: has no 'answers' that is a list"),
    (paragraph(answers=[]), "qas[0]: has no answer, as in version 2.0; set --task.unanswerable"),
    (paragraph(is_impossible=True), "qas[0]: has no answer, as in version 2.0; set --task.unanswerable"),
    (paragraph(is_impossible=False, answers=[]), "is_impossible is false, but it has no answers"),
    (paragraph(is_impossible="no"), "its is_impossible is 'no'; it must be true or false"),
    ({"context": "x"}, "data[0].paragraphs[0]: has no 'qas' that is a list"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_malformed_files_are_named(tmp_path, bad, message):
    file = write(tmp_path / "d.json", bad)
    with pytest.raises(InputError) as error:
        task(dev=file).read("dev")
    assert file in str(error.value) and message in str(error.value)


def test_other_files_are_named(tmp_path):
    file = write(tmp_path / "d.json", paragraph(), paragraph())
    with pytest.raises(InputError, match=r"paragraphs\[1\].qas\[0\]: its id '1' is that of data\[0\].paragraphs\[0\]"):
        task(train=file).read("train")
    whole = Path(file).read_text().replace("{", "{\n")
    Path(file).write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"d.json, line \d+, column \d+: not JSON"):
        task(train=file).read("train")
    for content, message in [
        (b'{"data": []}', "no questions"),
        (b"[]", "no 'data'"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 100_000, "unreadable JSON"),
        (b"[" + b"1" * 5_000 + b"]", "unreadable JSON"),
    ]:
        Path(file).write_bytes(content)
        with pytest.raises(InputError, match=message):
            task(train=file).read("train")
    with pytest.raises(InputError, match="train-v2.0.json: no such file"):
        task(folder=str(tmp_path), unanswerable=True).read("train")
    with pytest.raises(InputError, match="task.folder: names no folder that holds dev-v1.1.json"):
        task().read("dev")


def test_answers_that_are_not_there_are_left_out_of_training_and_counted(tmp_path, capsys):
    long = "The  narrow\u202fman,\nhe went to the café."
    paragraphs = [
        paragraph(long, id="right", text="he went", start=long.index("he went")),
        paragraph(long, id="near", text="narrow man", start=long.index("narrow") + 1),  # In the words it touches.
        paragraph(long, id="elsewhere", text="The", start=30),
        paragraph(long, id="nowhere", text="woman", start=0),
        paragraph(long, id="behind", text="café", start=len(long) - 2),
        paragraph(long, id="before", text="café", start=-5),
        paragraph(long, id="empty", text="", start=0),
    ]
    file = write(tmp_path / "d.json", *paragraphs)
    kept = task(train=file).read("train")
    assert [(one.id, long[slice(*one.span)]) for one in kept] == [("right", "he went"), ("near", "narrow\u202fman")]
    said = "5 of 7 questions are left out: their answer isn't at its answer_start (the first: id 'elsewhere', 'The')"
    assert said in capsys.readouterr().err
    assert len(task(dev=file).read("dev")) == 7
    with pytest.raises(InputError, match="no answer is in its paragraph"):
        task(train=write(tmp_path / "e.json", paragraphs[3])).read("train")


def test_the_test_set_may_lack_answers(tmp_path):
    bare = {"context": "The man went.", "qas": [{"question": "Who?", "id": "1"}]}
    family = task(test=write(tmp_path / "t.json", bare))
    assert family.test_splits == ("test",)
    assert family.read("test")[0].answers is None


def test_config():
    get_config = runpy.run_path(str(Path(__file__).parents[2] / "configs/finetune_squad.py"))["get_config"]
    assert (get_config().batch_size, get_config("squad2").optimizer.learning_rate) == (12, 5e-5)
    assert get_config("squad2").task.unanswerable and not get_config("squad").task.unanswerable
    with pytest.raises(InputError, match="squad3"):
        get_config("squad3")
