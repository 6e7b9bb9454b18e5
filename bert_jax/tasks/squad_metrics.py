"""SQuAD's scores in percent, as its evaluation scripts define them.

The versions differ: 2.0 leaves out gold answers that are empty when normalised, and gives full F1 where the answer and
the gold answer are both empty; 1.1 gives F1 0 there.
"""

import re
import string
from collections import Counter

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")

Scores = dict[str, float]


def normalised(text: str) -> str:
    """The text in lower case, without (ASCII) punctuation and articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    """1 where both texts are equal when normalised, else 0."""
    return float(normalised(answer) == normalised(gold))


def f1(answer: str, gold: str) -> float:
    """F1 of the two bags of words, from 0 to 1; two empty texts score 1."""
    words, gold_words = normalised(answer).split(), normalised(gold).split()
    if not words or not gold_words:
        return float(words == gold_words)
    common = sum((Counter(words) & Counter(gold_words)).values())
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def evaluate(answers: list[str], golds: list[tuple[str, ...]]) -> Scores:
    """The scores of version 1.1: an answer's best score against any of its question's gold answers, averaged."""
    pairs = list(zip(answers, golds, strict=True))
    exact = [max(exact_match(answer, gold) for gold in several) for answer, several in pairs]
    # Two empty answers have no word in common.
    overlap = [max(f1(answer, gold) if normalised(gold) else 0.0 for gold in several) for answer, several in pairs]
    return {"exact_match": _percent(exact), "f1": _percent(overlap)}


def evaluate_unanswerable(answers: list[str], golds: list[tuple[str, ...]], null_odds: list[float]) -> Scores:
    """The scores of version 2.0, where "" is right for a question without gold answers; also those of the questions
    with (HasAns) and without answers (NoAns), and the best scores that a threshold of the null odds could give."""
    pairs = list(zip(answers, map(_not_empty, golds), strict=True))
    raw = {
        "exact": [max(exact_match(answer, gold) for gold in several) for answer, several in pairs],
        "f1": [max(f1(answer, gold) for gold in several) for answer, several in pairs],
    }
    scores: Scores = {name: _percent(values) for name, values in raw.items()} | {"total": len(pairs)}
    for group, has in (("HasAns", True), ("NoAns", False)):
        members = [i for i, several in enumerate(golds) if bool(several) == has]
        if members:
            scores |= {f"{group}_{name}": _percent([values[i] for i in members]) for name, values in raw.items()}
            scores[f"{group}_total"] = len(members)
    for name, values in raw.items():
        best, threshold = best_threshold(answers, values, null_odds, [bool(several) for several in golds])
        scores |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return scores


def best_threshold(
    answers: list[str], scores: list[float], null_odds: list[float], answerable: list[bool]
) -> tuple[float, float]:
    """The best mean score in percent, and the threshold that gives it: questions with null odds above it get no answer.
    The search begins with no answers at all; answers that are "" already stay, so that only thresholds up to the one
    in use are searched."""
    current = best = float(answerable.count(False))
    threshold = 0.0
    for i in sorted(range(len(answers)), key=null_odds.__getitem__):
        if answerable[i]:
            current += scores[i]
        elif answers[i]:
            current -= 1
        if current > best:
            best, threshold = current, null_odds[i]
    return 100.0 * best / len(answers), threshold


def _not_empty(golds: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(gold for gold in golds if normalised(gold)) or ("",)


def _percent(scores: list[float]) -> float:
    return 100.0 * sum(scores) / len(scores)
