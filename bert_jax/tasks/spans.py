"""Finds the spans that tags mark, and scores them."""

import re
from collections import Counter
from collections.abc import Iterable

Span = tuple[str, int, int]

# The marks of a span's first word, a word within, its last word, and its only word: in IOB(ES), BILOU and BMES.
SCHEMES = ("BIES", "BILU", "BMES", "bies", "bilu", "bmes")
# The forms of a tag: B-PER; B_PER, B:PER, b-per; PER-B, PER_B; B alone.
FORMS = [
    re.compile(r"(?P<mark>[BIESLUM])-(?P<type>.+)"),
    re.compile(r"(?P<mark>\w)[-_:](?P<type>.+)"),
    re.compile(r"(?P<type>.+)[-_:](?P<mark>\w)"),
    re.compile(r"(?P<mark>\w)(?P<type>)"),
]
# The type of spans without a type, by its name in seqeval.
NO_TYPE = "_"


def standard(labels: Iterable[str], plain: str = "I") -> dict[str, str]:
    """The meaning of each label as a tag of IOBES: O, or B-, I-, E- or S- and a type.

    All labels of a model or a file together show their scheme and form. A label without a mark (NOUN, LABEL_1) is a
    type and gets the mark `plain`: I begins a new span where the label changes, as transformers' pipeline does; B makes
    each word a span.
    """
    labels = set(labels)
    return {label: f"{plain}-{label}" for label in labels} | {"O": "O"} | _marked(labels)


def _marked(labels: set[str]) -> dict[str, str]:
    """The IOBES tags of the labels that have a mark.

    Except for the form B-PER, all labels must have the same form, and some type must have both a mark of a first word
    and another one: E_MAIL may be a type.
    """
    named = labels - {"O", "o"}
    for form in FORMS:
        parts = {label: match.group("mark", "type") for label in named if (match := form.fullmatch(label))}
        scheme = next((scheme for scheme in SCHEMES if {mark for mark, _ in parts.values()} <= set(scheme)), None)
        firsts = {type_ for mark, type_ in parts.values() if mark in "Bb"}
        others = {type_ for mark, type_ in parts.values() if mark not in "Bb"}
        if parts and scheme and (form is FORMS[0] or (len(parts) == len(named) and firsts & others)):
            marks = dict(zip(scheme, "BIES", strict=True))
            tags = {label: f"{marks[mark]}-{type_ or NO_TYPE}" for label, (mark, type_) in parts.items()}
            return tags | ({"o": "O"} if scheme.islower() else {})
    return {}


def unmarked(tags: set[str]) -> set[str]:
    """The tags that don't tell where a span begins or continues, like NOUN."""
    return tags - {"O"} - _marked(tags).keys()


def tag_every_word(tags: set[str]) -> bool:
    """Whether a file's tags describe every word, like parts of speech, and don't mark spans."""
    return bool(tags) and all(tags) and unmarked(tags) == tags


def spans(tags: list[str]) -> list[Span]:
    """(type, start, end) of each span, with `end` after its last token, in tags of IOB1, IOB2 or IOBES (`standard`).

    Inconsistent tags are read by the rules of CoNLL-2000's conlleval: a span also begins where the type changes, and
    with I- or E- after an O or a span that has ended.
    """
    result, begin = [], 0
    before, type_before = "O", ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, type_ = tag.partition("-")
        begins = prefix != "O" and (prefix in "BS" or before in "OES" or type_ != type_before)
        if before != "O" and (begins or prefix == "O"):
            result.append((type_before, begin, i))
        if begins:
            begin = i
        before, type_before = prefix, type_
    return result


def scores(gold: Iterable[set[tuple]], predicted: Iterable[set[tuple]]) -> dict[str, float]:
    """Precision, recall and F1 in percent, over all spans (micro) and over the spans of each type, as f1/TYPE.

    Each span is a tuple that begins with its type. A division by 0 gives 0.
    """
    right: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for gold_spans, predicted_spans in zip(gold, predicted, strict=True):
        right.update(span[0] for span in gold_spans & predicted_spans)
        expected.update(span[0] for span in gold_spans)
        given.update(span[0] for span in predicted_spans)
    result = _scores(right.total(), expected.total(), given.total(), "")
    for type_ in sorted({*expected, *given}):
        result |= _scores(right[type_], expected[type_], given[type_], f"/{type_}")
    return result


def _scores(right: int, expected: int, given: int, suffix: str) -> dict[str, float]:
    values = {
        "precision": right / given if given else 0.0,
        "recall": right / expected if expected else 0.0,
        "f1": 2 * right / (expected + given) if expected + given else 0.0,
    }
    return {name + suffix: 100 * value for name, value in values.items()}


def accuracy(gold: Iterable[list[str]], predicted: Iterable[list[str]]) -> float:
    """Share of tokens with the right tag, in percent."""
    pairs = (pair for tags in zip(gold, predicted, strict=True) for pair in zip(*tags, strict=True))
    same = [a == b for a, b in pairs]
    return 100 * sum(same) / len(same) if same else 0.0


def marked(words: list[str], spans: list[Span]) -> str:
    """The text with its spans in brackets: "[John Smith PER] lives in [Bonn LOC]"."""
    text, done = [], 0
    for type_, begin, end in spans:
        text += [*words[done:begin], f"[{' '.join(words[begin:end])} {type_}]"]
        done = end
    return " ".join([*text, *words[done:]])
