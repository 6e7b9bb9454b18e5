"""Tags to spans, and the scores of spans."""

from collections import Counter
from collections.abc import Iterable

Span = tuple[str, int, int]


def spans(tags: list[str]) -> list[Span]:
    """(type, start, end) of each span, the end behind its last token, in tags of IOB1, IOB2 or IOBES.

    The rules are those of conlleval, of CoNLL-2000, where tags don't fit together: a span also begins where the type
    changes, and with I- or E- behind an O or a span that has ended.
    """
    found, begin = [], 0
    before, type_before = "O", ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, type_ = tag.partition("-")
        begins = prefix != "O" and (prefix in "BS" or before in "OES" or type_ != type_before)
        if before != "O" and (begins or prefix == "O"):
            found.append((type_before, begin, i))
        if begins:
            begin = i
        before, type_before = prefix, type_
    return found


def scores(gold: Iterable[set[tuple]], predicted: Iterable[set[tuple]]) -> dict[str, float]:
    """Precision, recall and F1 in percent, over all spans (micro) and, as f1/TYPE, over those of each type.

    Spans begin with their type. What would be divided by 0 is 0.
    """
    right, expected, found = Counter(), Counter(), Counter()
    for one, other in zip(gold, predicted, strict=True):
        right.update(span[0] for span in one & other)
        expected.update(span[0] for span in one)
        found.update(span[0] for span in other)
    result = _scores(right.total(), expected.total(), found.total(), "")
    for type_ in sorted({*expected, *found}):
        result |= _scores(right[type_], expected[type_], found[type_], f"/{type_}")
    return result


def _scores(right: int, expected: int, found: int, suffix: str) -> dict[str, float]:
    values = {
        "precision": right / found if found else 0.0,
        "recall": right / expected if expected else 0.0,
        "f1": 2 * right / (expected + found) if expected + found else 0.0,
    }
    return {name + suffix: 100 * value for name, value in values.items()}


def accuracy(gold: Iterable[list[str]], predicted: Iterable[list[str]]) -> float:
    """Share of tokens with the right tag, in percent."""
    same = [a == b for one, other in zip(gold, predicted, strict=True) for a, b in zip(one, other, strict=True)]
    return 100 * sum(same) / len(same) if same else 0.0


def marked(words: list[str], found: list[Span]) -> str:
    """The text with its spans in brackets: "[John Smith PER] lives in [Bonn LOC]"."""
    text, done = [], 0
    for type_, begin, end in found:
        text += [*words[done:begin], f"[{' '.join(words[begin:end])} {type_}]"]
        done = end
    return " ".join([*text, *words[done:]])
