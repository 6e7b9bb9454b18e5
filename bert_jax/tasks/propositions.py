"""Semantic roles in the columns of CoNLL-2005 and CoNLL-2012: a predicate's arguments in brackets, (A0* *) (V*)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.tasks.columns import Sentence, check_shape, read_sentences
from bert_jax.tasks.files import read_text
from bert_jax.tasks.spans import spans

BRACKETS = re.compile(r"(?:\(([^()*]+))?\*(?:([^()*]*)(\)))?")
# Columns of CoNLL-2012: the word, the predicate's lemma, its frame set, and the first column of arguments.
WORD, LEMMA, FRAMES, ARGUMENTS = 3, 6, 7, 11


@dataclass(frozen=True, eq=False)
class Propositions:
    """A sentence, and its predicates."""

    words: list[str]
    targets: list[str]
    """The lemma of each word that is a predicate, else "-"."""
    predicates: list[int]
    """The indices of the predicates' words."""
    tags: list[list[str]] | None
    """The BIO tags of each predicate's arguments; None where the file has none."""
    sentence: Sentence


def read_propositions(file: Path) -> list[Propositions]:
    """The sentences in a file of CoNLL-2012, where documents begin with #begin, or of CoNLL-2005.

    CoNLL-2005 has all columns in one file, or the words in a file whose name has "words" instead of "props", beside it
    or in ../words. Raises `InputError` naming the file and line.
    """
    if read_text(file).startswith("#begin document"):
        return [_from_2012(sentence) for sentence in read_sentences(file, comment="#")]
    sentences = read_sentences(file)
    return [_from_2005(sentence) for sentence in (_with_words(sentences, file) if "props" in file.name else sentences)]


def _with_words(props: list[Sentence], file: Path) -> list[Sentence]:
    name = file.name.replace("props", "words")
    files = [path for path in (file.with_name(name), file.parent.parent / "words" / name) if path.is_file()]
    if not files:
        raise InputError(f"{file}: its words are missing; put {name} beside it, or in ../words")
    words = read_sentences(files[0])
    for left, right in zip(words, props, strict=False):
        if len(left.rows) != len(right.rows):
            raise InputError(
                f"{right.where()}: sentence of {len(right.rows)} lines, but {len(left.rows)} at {left.where()}"
            )
    if len(words) != len(props):
        raise InputError(
            f"{file}: sentences: {len(props)}, but {len(words)} in {files[0]}; give files of the same text"
        )
    return [
        Sentence([a + b for a, b in zip(left.rows, right.rows, strict=True)], file, right.lines, right.separator)
        for left, right in zip(words, props, strict=True)
    ]


def _from_2005(sentence: Sentence) -> Propositions:
    check_shape(sentence, 2)
    count = width = len(sentence.rows[0])
    # The last columns hold arguments; the column of target verbs, left of them, has no brackets.
    while count > 1 and all("*" in cell for cell in sentence.column(count - 1)):
        count -= 1
    if count < 2:
        raise InputError(f"{sentence.where()}: has no column of target verbs; put it before those of arguments")
    targets = sentence.column(count - 1)
    predicates = [i for i, target in enumerate(targets) if target != "-"]
    columns = [_tags(sentence, i) for i in range(count, width)]
    if columns and len(columns) != len(predicates):
        raise InputError(
            f"{sentence.where()}: target verbs: {len(predicates)}, but {len(columns)} columns of arguments; "
            "give each verb one, in their order"
        )
    return Propositions(
        sentence.column(0), targets, predicates, columns if columns or not predicates else None, sentence
    )


def _from_2012(sentence: Sentence) -> Propositions:
    check_shape(sentence, ARGUMENTS + 1)
    words, lemmas, frames = map(sentence.column, (WORD, LEMMA, FRAMES))
    columns = [_tags(sentence, i) for i in range(ARGUMENTS, len(sentence.rows[0]) - 1)]
    predicates = [i for i, frame in enumerate(frames) if frame != "-"]
    if columns and all("B-V" in tags for tags in columns):
        columns.sort(key=lambda tags: tags.index("B-V"))
        predicates = [tags.index("B-V") for tags in columns]
    if columns and len(predicates) != len(columns):
        raise InputError(
            f"{sentence.where()}: a column of arguments has no (V*), so its predicate isn't known; correct it"
        )
    targets = ["-"] * len(words)
    for i in predicates:
        targets[i] = words[i] if lemmas[i] == "-" else lemmas[i]
    return Propositions(words, targets, predicates, columns if columns or not predicates else None, sentence)


def _tags(sentence: Sentence, column: int) -> list[str]:
    return tags_of_brackets(sentence.column(column), lambda i: f"{sentence.where(i)}: column {column + 1}")


def tags_of_brackets(cells: list[str], where: Callable[[int], str]) -> list[str]:
    """The BIO tags of a column. Raises `InputError`, where `where` names the row, for unmatched or nested brackets."""
    tags, role = [], None
    for i, cell in enumerate(cells):
        match = BRACKETS.fullmatch(cell)
        opens, closed, closes = match.groups() if match else (None, None, None)
        begins = opens is not None
        if (
            not match
            or (begins and role)
            or (closes and not (role or begins))
            or (closed and closed != (role or opens))
        ):
            shapes = "(A0*, *, *) and (A0*)"
            raise InputError(f"{where(i)}: {cell!r} doesn't fit; arguments are {shapes}, closed once, none in another")
        role = opens or role
        tags.append("O" if not role else f"B-{role}" if begins else f"I-{role}")
        if closes:
            role = None
    if role:
        raise InputError(f"{where(len(cells) - 1)}: ({role}* is never closed; write *) at its last word")
    return tags


def brackets_of_tags(tags: list[str]) -> list[str]:
    """The inverse of `tags_of_brackets`; inconsistent tags give the spans that conlleval's rules find in them."""
    cells = ["*"] * len(tags)
    for role, begin, end in spans(tags):
        cells[begin] = f"({role}{cells[begin]}"
        cells[end - 1] += ")"
    return cells


def arguments(tags: list[str]) -> set[tuple]:
    """(role, (start, end), ...) of each argument except V, as CoNLL-2005's srl-eval.pl counts them.

    C-A1 continues the last A1 before it, and is an argument by itself where there is none.
    """
    parts_of_role = []
    last: dict[str, list] = {}
    for role, begin, end in spans(tags):
        base = role.removeprefix("C-")
        if base != role and base in last:
            last[base].append((begin, end))
        else:
            last[base] = [(begin, end)]
            parts_of_role.append((base, last[base]))
    return {(role, *parts) for role, parts in parts_of_role if role != "V"}


def columns(propositions: Propositions, tags: list[list[str]]) -> Sentence:
    """The lines of a props file for srl-eval.pl."""
    cells = [propositions.targets, *map(brackets_of_tags, tags)]
    source = propositions.sentence
    return Sentence([list(row) for row in zip(*cells, strict=True)], source.file, source.lines, " ")
