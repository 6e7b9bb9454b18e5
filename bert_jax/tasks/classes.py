"""The classes in a training file, and checks for labels that look like mistakes in the file."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from bert_jax.config import InputError

# The texts that pandas reads as missing values, and so writes for them; and the one that JavaScript writes.
MISSING = {
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null", "undefined"),
}
# Labels aren't classes if they are more than this share of the rows, from this number of rows on; nor if they are more
# than this many numbers, some of which have fractions.
MOST_CLASSES, FEW_ROWS, MOST_FRACTIONS = 0.5, 20, 10
# The most labels that a line lists.
LISTED = 10
# Zero-width joiners are part of the spelling of words, for example in Persian, and of emoji.
JOINERS = "\u200c\u200d"
# Other marks and letters that can't be seen.
UNSEEN = "\u034f\u115f\u1160\ufe0e\ufe0f"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
# Letters that look like Latin ones.
LOOKALIKES = str.maketrans("авеіјкмнорсѕтухԁгοαν", "abeijkmhopcstyxdroav")
TRUTHS = {"true": "1.0", "false": "0.0"}
# Usual names of columns of texts and labels.
NAMES = {
    *("text", "texts", "sentence", "sentence1", "sentence2", "review", "content", "title", "comment", "tweet"),
    *("premise", "hypothesis", "question", "question1", "question2", "text_a", "text_b", "document", "message"),
    *("label", "labels", "class", "category", "target", "sentiment", "score", "rating", "stars", "gold_label", "y"),
}
REMEDY = "correct it, or if it is right name all classes: --task.labels A B ..."

# A label and its location, for example "train.csv, line 7".
Located = tuple[str, str]


def classes_of(labels: Sequence[Located]) -> tuple[str, ...]:
    """The classes of a training file's labels, sorted.

    Raises `InputError` for what looks like a mistake: a missing value, an invisible character, two spellings of one
    class, about as many classes as rows, numbers with fractions.
    """
    first: dict[str, str] = {}
    for label, location in labels:
        first.setdefault(label, location)
    check_alike(first.items(), REMEDY)
    for label, location in first.items():
        if label in MISSING:
            raise InputError(f"{location}: the label {label!r} looks like a missing value; {REMEDY}")
        if not label.translate(dict.fromkeys(map(ord, JOINERS))).isprintable():
            raise InputError(f"{location}: the label {ascii(label)} has an invisible character; {REMEDY}")
    _check_number(first, labels)
    return tuple(sorted(first))


def check_alike(labels: Iterable[Located], remedy: str) -> None:
    """Raises `InputError` for two labels that differ only in spelling."""
    seen: dict[str, Located] = {}
    for label, location in labels:
        other, where = seen.setdefault(_likeness(label), (label, location))
        if other != label:
            a, b = (repr(text) if text.isascii() else ascii(text) for text in (label, other))
            raise InputError(f"{location}: the label {a} is much like {b} of {where}; {remedy}")


def _likeness(label: str) -> str:
    """A text that is equal for labels that differ only in case, spaces, dashes, punctuation around them, Unicode forms,
    invisible characters and similar letters of another alphabet, and for numbers of the same value."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(c for c in text if c.isspace() or (c.isprintable() and c not in UNSEEN)).strip()
    text = "".join("-" if unicodedata.category(c) == "Pd" or c == "\u2212" else c for c in text)
    if NUMBER.fullmatch(text):
        return repr(float(text))
    text = re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", "-", text.translate(LOOKALIKES))
    return TRUTHS.get(text) or text.strip("'\"`.,;:") or text


def _check_number(first: dict[str, str], labels: Sequence[Located]) -> None:
    label, location = next(iter(first.items()))
    if len(labels) >= FEW_ROWS and len(first) > MOST_CLASSES * len(labels):
        rows = len({location for _, location in labels})  # A row may have several labels.
        problem = f"{len(first):,} different labels in {rows:,} rows (here {label[:60]!r}), so they aren't classes"
        column = "name the right column with --task.label-column"
        raise InputError(f"{location}: {problem}; {column}, or if they are numbers take --task.name regression")
    numbers = all(map(NUMBER.fullmatch, first))
    if numbers and len(first) > MOST_FRACTIONS and any(float(label) % 1 for label in first):
        problem = f"the labels are {len(first):,} numbers with fractions"
        raise InputError(f"{location}: {problem}; take --task.name regression, or name them all: --task.labels A B ...")


def check_header(texts: Sequence[str], labels: Sequence[Located], location: str) -> None:
    """Raises `InputError` where the first line of a table that is read without a header looks like a header.

    `texts` are the first line's; `labels` are those of all lines, in a training file.
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
        raise InputError(f"{location}: looks like a header ({cells}), but columns are given by number; {how}")


def counted(labels: Iterable[str | None], classes: Iterable[str] = ()) -> str:
    """How often each label occurs, the most frequent first: "negative 607, positive 593; 3 without a label".

    `classes` are listed even if they don't occur; a long list is abbreviated.
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
    """Number of inputs that occur with different labels."""
    labels_of_input = defaultdict(set)
    for text, label in zip(inputs, labels, strict=True):
        labels_of_input[text].add(label)
    return sum(len(seen) > 1 for seen in labels_of_input.values())
