"""SQuAD's scores against literals and rewritten definitions."""

import random
from collections import Counter

import numpy as np
import pytest

from bert_jax.tasks import squad_metrics


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("The Cat!", ("a cat", "dogs"), 100, 100),
        ("the cat sat", ("cat sat on the mat", "x"), 0, 100 * 2 * (2 / 2) * (2 / 4) / (2 / 2 + 2 / 4)),
        ("cat cat", ("cat",), 0, 100 * 2 / 3),
        ("\u201ccat\u201d", ("cat",), 0, 0),  # Only ASCII's punctuation goes.
        ("St. Paul\u2019s", ("st paul\u2019s",), 100, 100),
        ("U.S.A.", ("usa",), 100, 100),
        ("an-them", ("anthem",), 100, 100),
        ("ÉCOLE", ("école",), 100, 100),
        ("a\u00a0dog", ("dog",), 100, 100),
        ("", ("cat",), 0, 0),
    ],
)
def test_scores_of_both_versions(answer, golds, exact, f1):
    old = squad_metrics.evaluate([answer], [golds])
    assert old == pytest.approx({"exact_match": exact, "f1": f1})
    new = squad_metrics.evaluate_unanswerable([answer], [golds], [0.0])
    assert (new["exact"], new["f1"]) == pytest.approx((exact, f1))


def test_where_the_versions_differ():
    assert squad_metrics.evaluate([""], [("The",)]) == {"exact_match": 100, "f1": 0}
    new = squad_metrics.evaluate_unanswerable(["", "the", "cat"], [("The",), (), ()], [0.0, 0.0, 0.0])
    assert (new["exact"], new["HasAns_f1"], new["NoAns_f1"]) == pytest.approx((100 * 2 / 3, 100, 50))
    assert "NoAns_f1" not in squad_metrics.evaluate_unanswerable(["x"], [("x",)], [0.0])
    assert "HasAns_f1" not in squad_metrics.evaluate_unanswerable(["x"], [()], [0.0])


def rewritten(answers, golds, odds):
    """Version 2.0's script once more, question by question."""

    def bag(text):
        kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
        return [word for word in kept.split() if word not in ("a", "an", "the")]

    def best(answer, several):
        several = [bag(gold) for gold in several if bag(gold)] or [[]]
        exact = max(bag(answer) == gold for gold in several)
        overlaps = []
        for gold in several:
            shared = (Counter(bag(answer)) & Counter(gold)).total()
            total = len(bag(answer)) + len(gold)
            overlaps.append(2 * shared / total if bag(answer) and gold else float(bag(answer) == gold))
        return float(exact), max(overlaps)

    n = len(answers)
    both = np.array([best(*pair) for pair in zip(answers, golds, strict=True)])
    has = np.array([bool(several) for several in golds])
    result = {"exact": both[:, 0].mean(), "f1": both[:, 1].mean()}
    for name, group in (("HasAns", has), ("NoAns", ~has)):
        result |= {f"{name}_exact": both[group, 0].mean(), f"{name}_f1": both[group, 1].mean()}
    for column, name in enumerate(("exact", "f1")):
        # A threshold at each of the odds in turn: those up to it are answered, the others left without an answer.
        order = np.argsort(odds, kind="stable")
        sums = [(~has).sum()]
        for kept in range(1, n + 1):
            answered, rest = order[:kept], order[kept:]
            unasked = sum(1 - bool(answers[i]) for i in answered if not has[i])
            sums.append(both[answered][has[answered], column].sum() + unasked + (~has[rest]).sum())
        at = int(np.argmax(np.round(sums, 9)))
        result |= {f"best_{name}": sums[at] / n, f"best_{name}_thresh": odds[order[at - 1]] / 100 if at else 0.0}
    return {name: 100 * value for name, value in result.items()}


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_the_definitions_on_random_answers(seed):
    rng = random.Random(seed)
    words = ["a", "The", "an", "cat", "Cat's", "dog!", "—", "“dog”", "!", "été", "1,000", "中"]

    def text(least):
        return " ".join(rng.choices(words, k=rng.randint(least, 4)))

    n = rng.randint(5, 60)
    golds = [(), (text(1),)] + [tuple(text(1) for _ in range(rng.randint(0, 3))) for _ in range(n - 2)]
    answers = [rng.choice([*several, text(0), ""]) for several in golds]
    odds = [rng.gauss(0, 5) for _ in golds]
    got = squad_metrics.evaluate_unanswerable(answers, golds, odds)
    expected = rewritten(answers, golds, odds)
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert (got["total"], got["HasAns_total"] + got["NoAns_total"]) == (n, n)
