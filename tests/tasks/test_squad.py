"""SQuAD's windows and predictions against literals, transformers' windows, and 500 real paragraphs."""

import json
import random

import numpy as np
import pytest
from test_squad_files import paragraph, task, write

from bert_jax.config import InputError, TokenizerConfig
from bert_jax.data import tokenizers
from bert_jax.tasks import squad, squad_files
from bert_jax.tasks.squad import Example

WORDS = (
    "the man went to store and bought a gallon of milk who did what john smith was born ( 1895 - 1943 ) . cafe 中 文"
)
VOCABULARY = [*tokenizers.SPECIAL, *WORDS.split(), "##ese", "japan", "'", "s", ","]


@pytest.fixture(scope="module")
def wordpiece():
    return tokenizers.WordPiece(VOCABULARY, lowercase=True)


@pytest.fixture(scope="module")
def sentencepiece(corpus):
    return tokenizers.train(corpus.read_text().split("\n"), TokenizerConfig(kind="sentencepiece", vocab_size=120))


def example(question: str, context: str, *answers: str) -> Example:
    span = squad_files.locate(context, answers[0], context.index(answers[0])) if answers else None
    return Example(question, context, "q", answers, span)


def tokens(window, tokenizer) -> str:
    return " ".join(tokenizer.pieces()[i] for i in window.input_ids)


def given_back(one: Example, window) -> str:
    """The prediction where the logits say what the label does."""
    logits = np.zeros((len(window.input_ids), 2))
    logits[window.label[0], 0] = logits[window.label[1], 1] = 9
    only = [squad.replace(window, example=0)]
    return task(answer_length=384).predict([one], only, [logits])[0].answer.text


# Windows and labels.


def test_windows_overlap_and_a_window_without_the_answer_is_trained_to_cls(wordpiece):
    one = example("Who did what?", "The man went to the store and bought a gallon of milk", "a gallon")
    windows = task(query_length=2, stride=3).features([one], wordpiece, 10, training=True)
    assert [tokens(w, wordpiece) for w in windows] == [
        "[CLS] who did [SEP] the man went to the [SEP]",
        "[CLS] who did [SEP] to the store and bought [SEP]",
        "[CLS] who did [SEP] and bought a gallon of [SEP]",
        "[CLS] who did [SEP] gallon of milk [SEP]",
    ]
    assert [w.label for w in windows] == [(0, 0), (0, 0), (6, 7), (0, 0)]
    assert windows[3].token_type_ids == [0, 0, 0, 0, 1, 1, 1, 1]
    # "bought" has no token behind it in the second, one before it in the third.
    widest = squad._widest(tuple(windows))
    assert [row.astype(int).tolist() for row in widest] == [
        [1, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1],
    ]


@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        ("John Smith was born (1895-1943).", "1895", "1895"),
        ("John Smith was born (1895-1943).", "Smith was", "smith was"),
        ("the (1895-1895).", "1895", "1895"),
        ("the (Japanese).", "Japan", "japan"),
        ("the (Japanese).", "Jap", "japan"),
    ],
)
def test_the_label_is_the_tokens_of_the_answer(wordpiece, context, answer, expected):
    one = example("who?", context, answer)
    if context.count(answer) == 2:  # Of those alike, the one that is meant.
        one = squad.replace(one, span=(context.rindex(answer), context.rindex(answer) + len(answer)))
    (window,) = task().features([one], wordpiece, 384, training=True)
    first, last = window.label
    assert [VOCABULARY[i] for i in window.input_ids[first : last + 1]] == expected.split()
    if context.count(answer) == 2:
        assert first > 6


def test_unanswerable_questions_are_labelled_cls_and_unknown_ones_not_at_all(wordpiece):
    questions = [Example("who?", "the man", "a", ()), Example("who?", "the man", "b")]
    windows = task(unanswerable=True).features(questions, wordpiece, 384, training=True)
    assert [w.label for w in windows] == [(0, 0), None]


def test_a_window_needs_room(wordpiece):
    with pytest.raises(InputError, match="sequence_length: is 67, must be more than task.query_length 64"):
        task().features([Example("who?", "the man")], wordpiece, 67, training=False)
    with pytest.raises(InputError, match="task.stride: is 0"):
        task(stride=0)


# Text that is given back.

ODD = [
    ("the Cafe\u0301  and\n milk", "Cafe\u0301"),
    ("the CAFÉ\u202f, a man", "CAFÉ"),
    ("the\u00a0\u00a0man went  to\tthe store", "man went  to\tthe"),
    ("the man\u2019s (store)\u2026 a", "(store)"),
    ("中文 and 中文", "中文"),
    ("the Å\u0301ngstrom \u200bman \ufeffwent", "Å\u0301ngstrom \u200bman"),
    ("the नमस्ते man", "नमस्ते"),
    ("the ❤️ man", "❤️"),
]


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
@pytest.mark.parametrize(("context", "answer"), ODD)
def test_the_text_given_back_is_the_contexts_own(request, kind, context, answer):
    one = example("who?", context, answer)
    (window,) = task().features([one], request.getfixturevalue(kind), 384, training=True)
    found = given_back(one, window)
    if kind == "wordpiece" or answer.isascii():
        assert found == answer
    else:  # SentencePiece may take what is around a character into one piece with it.
        assert answer in found and found in context


# Predictions.


def by_hand(one: Example, windows, logits, n_best: int, longest: int, unanswerable: bool) -> list[tuple[float, str]]:
    """(score, text) of the n best, by going through all pairs of tokens."""
    pieces = [(w.first + i, w, i + w.offset) for w in windows for i in range(len(w.input_ids) - w.offset - 1)]

    def room(window, place):
        size = len(window.input_ids) - window.offset - 1
        return min(place - window.first, window.first + size - 1 - place) + size / 100

    best: dict[str, float] = {}
    for place, window, i in pieces:
        scores = logits[windows.index(window)]
        if any(room(other, place) > room(window, place) for p, other, _ in pieces if p == place):
            continue
        for j in range(i, min(i + longest, len(scores) - 1)):
            if i in scores[:, 0].argsort()[-n_best:] and j in scores[:, 1].argsort()[-n_best:]:
                characters = window.document.starts[place], window.document.ends[place + j - i]
                text = one.context[slice(*characters)]
                best[text] = max(best.get(text, -np.inf), scores[i, 0] + scores[j, 1])
    if unanswerable:
        best[""] = min(scores[0].sum() for scores in logits)
    listed = sorted(((score, text) for text, score in best.items()), reverse=True)
    null = [pair for pair in listed[n_best:] if not pair[1]]
    return listed[:n_best] + null


@pytest.mark.parametrize("unanswerable", [False, True])
def test_n_best_of_random_logits(wordpiece, unanswerable):
    rng = np.random.default_rng(0)
    family = task(unanswerable=unanswerable, stride=5, query_length=4, n_best=6, answer_length=4)
    words = WORDS.split()
    for _ in range(30):
        context = " ".join(rng.choice(words, rng.integers(1, 40)))
        one = Example("who did what?", context, "q", ())
        windows = family.features([one], wordpiece, 18, training=False)
        logits = [rng.normal(size=(len(w.input_ids), 2)) for w in windows]
        (prediction,) = family.predict([one], windows, logits)
        expected = by_hand(one, windows, logits, 6, 4, unanswerable)
        assert [answer.text for answer in prediction.n_best] == ([text for _, text in expected] or [""])
        if not expected:
            continue
        scores = np.array([score for score, _ in expected])
        np.testing.assert_allclose([answer.score for answer in prediction.n_best], scores)
        shares = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose([answer.probability for answer in prediction.n_best], shares)
        for answer in prediction.n_best:
            assert answer.text == (context[slice(*answer.span)] if answer.span else "")
        if unanswerable and len(expected) > 1:
            null = next(score for score, text in expected if not text)
            top, text = next(pair for pair in expected if pair[1])
            assert prediction.null_odds == pytest.approx(null - top)
            assert prediction.answer.text == ("" if null > top else text)


def test_null_score_is_the_least_of_all_windows_and_the_threshold_decides(wordpiece):
    one = Example("who?", "the man went to the store", "q", ())

    def predicted(threshold: float):
        family = task(unanswerable=True, null_threshold=threshold, stride=3, query_length=4)
        windows = family.features([one], wordpiece, 8, training=False)
        assert len(windows) == 2
        logits = [np.zeros((len(w.input_ids), 2)) for w in windows]
        logits[0][0], logits[1][0] = (4, 4), (2, 3)
        man = tokens(windows[0], wordpiece).split().index("man")
        logits[0][man] = (1.5, 1.5)
        return family.predict([one], windows, logits)[0]

    for threshold, text in [(-1.0, ""), (1.99, ""), (2.0, "man"), (5.0, "man")]:
        prediction = predicted(threshold)
        assert (prediction.answer.text, prediction.null_odds) == (text, 2.0)
        assert (prediction.n_best[0].text, prediction.n_best[0].score) == ("", 5.0)
        assert prediction.answer.probability == next(a.probability for a in prediction.n_best if a.text == text)


@pytest.mark.parametrize("unanswerable", [False, True])
def test_where_nothing_can_be_an_answer_there_is_none(wordpiece, unanswerable):
    one = Example("who did what?", "the man", "q", ())
    family = task(unanswerable=unanswerable, n_best=1, null_threshold=2e6)
    (window,) = family.features([one], wordpiece, 384, training=False)
    logits = np.zeros((len(window.input_ids), 2))
    logits[1] = 1.0  # The best start and end are in the question.
    (prediction,) = family.predict([one], [window], [logits])
    assert prediction.answer.text == ""
    assert prediction.null_odds == (1e6 if unanswerable else None)
    json.dumps(family.rows([one], [prediction]), allow_nan=False)


def test_a_question_of_ones_own(wordpiece):
    one = squad_files.example("who?", "the man went")
    windows = task().features([one], wordpiece, 384, training=False)
    logits = np.zeros((len(windows[0].input_ids), 2))
    logits[5] = 3.0
    (prediction,) = task().predict([one], windows, [logits])
    assert (prediction.answer.text, prediction.answer.span) == ("man", (4, 7))
    assert task().metrics([one], [prediction]) == {}
    assert task().rows([one], [prediction])[0]["right"] is None
    with pytest.raises(InputError, match="its question is empty"):
        squad_files.example(" ", "the man")


def test_version_2_and_its_submission(tmp_path, wordpiece):
    plausible = {"is_impossible": True, "answers": [], "plausible_answers": [{"text": "The", "answer_start": 0}]}
    paragraphs = [
        paragraph(is_impossible=False, answers=[{"text": t, "answer_start": 4} for t in ("man", "man went")]),
        paragraph(id="2", **plausible),
    ]
    write(tmp_path / "dev-v2.0.json", *paragraphs)
    family = task(folder=str(tmp_path), unanswerable=True)
    assert (family.dev_splits, family.test_splits, family.best_by) == (("dev",), (), "best_f1")
    examples = family.read("dev")
    assert [one.answers for one in examples] == [("man", "man went"), ()]
    windows = family.features(examples, wordpiece, 384, training=False)
    logits = [np.zeros((len(w.input_ids), 2)) for w in windows]
    logits[0][windows[0].label[0]] = logits[1][0] = 5.0
    predictions = family.predict(examples, windows, logits)
    assert family.metrics(examples, predictions)["f1"] == 100
    assert [row["right"] for row in family.rows(examples, predictions)] == [True, True]
    assert [row["gold"] for row in family.rows(examples, predictions)] == ["man / man went", ""]
    files = family.submit(tmp_path, "dev", examples, predictions)
    assert [file.name for file in files] == ["predictions.json", "nbest_predictions.json", "null_odds.json"]
    read = {file.name: json.loads(file.read_text()) for file in files}
    assert read["predictions.json"] == {"1": "man", "2": ""}
    assert read["null_odds.json"] == {"1": -10.0, "2": 10.0}
    first = read["nbest_predictions.json"]["1"][0]
    assert list(first) == ["text", "probability", "start_logit", "end_logit"] and first["text"] == "man"


# Real paragraphs.


@pytest.fixture(scope="module")
def real(real_data) -> list[Example]:
    """500 paragraphs of three sources; an example for each gold answer."""
    examples = []
    for source, count in (("new_wiki", 200), ("reddit", 150), ("amazon_reviews", 150)):
        data = json.loads((real_data / f"qa/squadshifts/{source}_v1.0.json").read_text())["data"]
        paragraphs = [p for article in data for p in article["paragraphs"]]
        for p in random.Random(0).sample(paragraphs, count):
            for qa in p["qas"]:
                for answer in qa["answers"]:
                    span = squad_files.locate(p["context"], answer["text"], answer["answer_start"])
                    assert p["context"][slice(*span)] == answer["text"]
                    examples.append(Example(qa["question"], p["context"], qa["id"], (answer["text"],), span))
    return examples


@pytest.mark.parametrize("kind", ["uncased", "cased", "sentencepiece"])
def test_every_real_answer_is_in_a_window_and_given_back(real, real_data, kind):
    if kind == "sentencepiece":
        text = (real_data / "corpus/wiki_en.txt").read_text()[:300_000].split("\n")
        tokenizer = tokenizers.train([line for line in text if line], TokenizerConfig(kind=kind, vocab_size=4000))
    else:
        vocab = real_data / f"vocab/bert-base-{kind}-vocab.txt"
        tokenizer = tokenizers.load(str(vocab), TokenizerConfig(lowercase=kind == "uncased"))
    windows = task().features(real, tokenizer, 384, training=True)
    found = {window.example: window for window in windows if window.label != (0, 0)}
    assert len(found) == len(real)
    other = otherwise = 0
    alone = tokenizer.encode([one.answers[0] for one in real])
    for i, window in found.items():
        one, text = real[i], given_back(real[i], window)
        if text == one.answers[0].strip():
            # The original searches the context for the answer's own tokens.
            otherwise += window.input_ids[window.label[0] : window.label[1] + 1] != alone[i]
            continue
        # Only where the answer begins or ends inside of a token; then that token is whole.
        other += 1
        document, (first, last) = window.document, window.document.tokens(one.span)
        assert document.starts[first] < one.span[0] or document.ends[last] > one.span[1]
        assert one.answers[0].strip() in text
    assert other < len(real) * (0.02 if kind == "sentencepiece" else 0.003)
    assert otherwise < 0.001 * len(real) or kind == "sentencepiece"  # There "▁" begins a text.
    print(f"{len(real)} answers, {len(windows)} windows, {other} inside of a token, {otherwise} otherwise cut")


def test_real_windows_equal_transformers(real, real_data):
    from transformers import BertTokenizer

    vocab = str(real_data / "vocab/bert-base-uncased-vocab.txt")
    ours, theirs = tokenizers.load(vocab, TokenizerConfig()), BertTokenizer(vocab)
    questions = list({one.id: one for one in real}.values())[::4]
    for length in (384, 128):
        windows = task(stride=length // 3).features(questions, ours, length, training=False)
        grouped = {}
        for window in windows:
            grouped.setdefault(window.example, []).append(window)
        for i, one in enumerate(questions):
            room = length - 1 - grouped[i][0].offset
            expected = theirs(
                one.question,
                one.context,
                truncation="only_second",
                max_length=length,
                stride=max(room - length // 3, 0),
                return_overflowing_tokens=True,
            )
            assert [w.input_ids for w in grouped[i]] == expected["input_ids"]
            assert [w.token_type_ids for w in grouped[i]] == expected["token_type_ids"]
