"""Tags to spans, and the scores of spans."""

import re
from collections import Counter
from collections.abc import Iterable

Span = tuple[str, int, int]

# What marks a span's first word, one within, its last, and one alone: in IOB and IOBES, in BILOU, and in BMES.
SCHEMES = ("BIES", "BILU", "BMES", "bies", "bilu", "bmes")
# Where the mark stands: B-PER; B_PER, B:PER, b-per; PER-B, PER_B; B alone.
FORMS = [
    re.compile(r"(?P<mark>[BIESLUM])-(?P<type>.+)"),
    re.compile(r"(?P<mark>\w)[-_:](?P<type>.+)"),
    re.compile(r"(?P<type>.+)[-_:](?P<mark>\w)"),
    re.compile(r"(?P<mark>\w)(?P<type>)"),
]
# The type of spans that have none, as seqeval calls it.
NO_TYPE = "_"


def standard(labels: Iterable[str], plain: str = "I") -> dict[str, str]:
    """What each label says, as a tag of IOBES: O, or B-, I-, E- or S- and a type.

    The labels of a model or a file are taken together: of which scheme they are, and how they are written. One without
    a mark (NOUN, LABEL_1) is a type by itself and gets the mark `plain`: I parts spans where the label changes, as
    transformers' pipeline does; B makes each word a span.
    """
    labels = set(labels)
    return {label: f"{plain}-{label}" for label in labels} | {"O": "O"} | _marked(labels)


def _marked(labels: set[str]) -> dict[str, str]:
    """The tags of the labels that have a mark.

    But for B-PER, all labels must be written alike, and some type have a first word and others: E_MAIL may be a type.
    """
    named = labels - {"O", "o"}
    for form in FORMS:
        found = {label: match.group("mark", "type") for label in named if (match := form.fullmatch(label))}
        scheme = next((scheme for scheme in SCHEMES if {mark for mark, _ in found.values()} <= set(scheme)), None)
        firsts = {type_ for mark, type_ in found.values() if mark in "Bb"}
        others = {type_ for mark, type_ in found.values() if mark not in "Bb"}
        if found and scheme and (form is FORMS[0] or (len(found) == len(named) and firsts & others)):
            marks = dict(zip(scheme, "BIES", strict=True))
            tags = {label: f"{marks[mark]}-{type_ or NO_TYPE}" for label, (mark, type_) in found.items()}
            return tags | ({"o": "O"} if scheme.islower() else {})
    return {}


def unmarked(tags: set[str]) -> set[str]:
    """Those that don't say where a span begins or goes on, as NOUN."""
    return tags - {"O"} - _marked(tags).keys()


def of_words(tags: set[str]) -> bool:
    """Whether a file's tags say something of every word, as parts of speech do, and mark no spans."""
    return bool(tags) and all(tags) and unmarked(tags) == tags


def spans(tags: list[str]) -> list[Span]:
    """(type, start, end) of each span, the end behind its last token, in tags of IOB1, IOB2 or IOBES (`standard`).

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
    right: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    found: Counter[str] = Counter()
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
