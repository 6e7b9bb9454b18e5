"""The classes of a training file: which there are, and whether one of them is rather a mistake in the file."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from bert_jax.config import InputError

# What pandas takes for a missing value, and so what missing values become in files; and what JavaScript writes.
MISSING = {
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null", "undefined"),
}
# More classes than this share of all labels aren't any, nor more numbers than so many with fractions among them.
MOST_CLASSES, FEW_ROWS, MOST_FRACTIONS = 0.5, 20, 10
# Labels that a line lists.
LISTED = 10
# Joiners belong to the spelling of words, as in Persian, and to emoji.
JOINERS = "\u200c\u200d"
# Marks and letters that can't be seen either.
UNSEEN = "\u034f\u115f\u1160\ufe0e\ufe0f"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
# Letters that look like Latin ones.
LOOKALIKES = str.maketrans("авеіјкмнорсѕтухԁгοαν", "abeijkmhopcstyxdroav")
TRUTHS = {"true": "1.0", "false": "0.0"}
# What columns of texts and labels are called.
NAMES = {
    *("text", "texts", "sentence", "sentence1", "sentence2", "review", "content", "title", "comment", "tweet"),
    *("premise", "hypothesis", "question", "question1", "question2", "text_a", "text_b", "document", "message"),
    *("label", "labels", "class", "category", "target", "sentiment", "score", "rating", "stars", "gold_label", "y"),
}
REMEDY = "correct it, or if it is right name all classes: --task.labels A B ..."

# A label and where it stands.
Place = tuple[str, str]


def classes_of(labels: Sequence[Place]) -> tuple[str, ...]:
    """The classes of a training file's labels, sorted.

    Raises `InputError` for what looks like a mistake: a missing value, an invisible character, two ways to write the
    same, as many classes as rows, numbers with fractions.
    """
    first: dict[str, str] = {}
    for label, place in labels:
        first.setdefault(label, place)
    check_alike(first.items(), REMEDY)
    for label, place in first.items():
        if label in MISSING:
            raise InputError(f"{place}: the label {label!r} looks like a missing value; {REMEDY}")
        if not label.translate(dict.fromkeys(map(ord, JOINERS))).isprintable():
            raise InputError(f"{place}: the label {ascii(label)} has an invisible character; {REMEDY}")
    _check_number(first, labels)
    return tuple(sorted(first))


def check_alike(labels: Iterable[Place], remedy: str) -> None:
    """Raises `InputError` for a label that is another one but for how it is written."""
    seen: dict[str, Place] = {}
    for label, place in labels:
        other, where = seen.setdefault(_likeness(label), (label, place))
        if other != label:
            a, b = (repr(one) if one.isascii() else ascii(one) for one in (label, other))
            raise InputError(f"{place}: the label {a} is much like {b} of {where}; {remedy}")


def _likeness(label: str) -> str:
    """The same for labels that differ only in case, spaces, dashes, punctuation around them, Unicode forms, invisible
    characters and letters of another alphabet that look alike, and for numbers of the same value."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(c for c in text if c.isspace() or (c.isprintable() and c not in UNSEEN)).strip()
    text = "".join("-" if unicodedata.category(c) == "Pd" or c == "\u2212" else c for c in text)
    if NUMBER.fullmatch(text):
        return repr(float(text))
    text = re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", "-", text.translate(LOOKALIKES))
    return TRUTHS.get(text) or text.strip("'\"`.,;:") or text


def _check_number(first: dict[str, str], labels: Sequence[Place]) -> None:
    label, place = next(iter(first.items()))
    if len(labels) >= FEW_ROWS and len(first) > MOST_CLASSES * len(labels):
        rows = len({place for _, place in labels})  # Which have several labels, where any number is right.
        many = f"{len(first):,} different labels in {rows:,} rows (here {label[:60]!r}), so they aren't classes"
        column = "name the right column with --task.label-column"
        raise InputError(f"{place}: {many}; {column}, or if they are numbers take --task.name regression")
    numbers = all(map(NUMBER.fullmatch, first))
    if numbers and len(first) > MOST_FRACTIONS and any(float(one) % 1 for one in first):
        many = f"the labels are {len(first):,} numbers with fractions"
        raise InputError(f"{place}: {many}; take --task.name regression, or name them all: --task.labels A B ...")


def check_header(texts: Sequence[str], labels: Sequence[Place], place: str) -> None:
    """Raises `InputError` where the first line of a table that is read without a header looks like one.

    `texts` are that line's; `labels` those of all lines, where they are to be learned from.
    """
    alone = False
    if labels:
        counts = Counter(label for label, _ in labels)
        label, rest = labels[0][0], Counter(label for label, _ in labels[1:])
        words = all(re.fullmatch(r"[^\W\d]\w*( \w+)?", text.strip()) for text in texts)
        alone = counts[label] == 1 and (label.lower() in NAMES or words and min(rest.values(), default=0) > 1)
    if alone or all(text.strip().lower() in NAMES for text in texts):
        cells = ", ".join([*texts, *(label for label, _ in labels[:1])])
        how = "give --task.text-column and the others names, not numbers, or take the line out"
        raise InputError(f"{place}: looks like a header ({cells}), but columns are given by number; {how}")


def counted(labels: Iterable[str | None], classes: Iterable[str] = ()) -> str:
    """How often each label occurs, the most frequent first: "negative 607, positive 593; 3 without a label".

    `classes` are named even where they don't occur; many are abbreviated.
    """
    counts = Counter(labels)
    unknown = counts.pop(None, 0)
    for name in classes if counts else ():
        counts.setdefault(name, 0)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{label} {count:,}" for label, count in ordered[:LISTED]]
    if rest := ordered[LISTED:]:
        shown.append(f"and {len(rest):,} more, the rarest {rest[-1][0]} {rest[-1][1]:,}")
    return "; ".join([", ".join(shown)] * bool(shown) + [f"{unknown:,} without a label"] * bool(unknown))


def contradictions(inputs: Iterable, labels: Iterable) -> int:
    """How many inputs occur with different labels."""
    of_input = defaultdict(set)
    for one, label in zip(inputs, labels, strict=True):
        of_input[one].add(label)
    return sum(len(seen) > 1 for seen in of_input.values())
