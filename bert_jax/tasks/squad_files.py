"""Reads SQuAD's JSON, versions 1.1 and 2.0: paragraphs with questions, and answers by their characters."""

import bisect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.config import InputError, first_line
from bert_jax.files.contents import json_value
from bert_jax.tasks.files import read_text
from bert_jax.tasks.tables import Row, Table

# The original's white space; U+202F is a narrow no-break space.
_WORD = re.compile("[^ \t\r\n\u202f]+")
_SPACE = "[ \t\r\n\u202f]+"

Span = tuple[int, int]


@dataclass(frozen=True)
class Example:
    """A question on a paragraph."""

    question: str
    context: str
    id: str = ""
    answers: tuple[str, ...] | None = None
    """The gold answers; () where the paragraph holds none, None where they aren't known."""
    span: Span | None = None
    """The first gold answer's characters in the context, (start, end); None where it isn't found."""


def example(question: str, context: str) -> Example:
    """A person's own question. Raises `InputError` where it or the context is empty."""
    values = {"question": question, "context": context}
    return Example(_text(values, "question", "the question"), _text(values, "context", "the context"))


def read(file: Path | Table, unanswerable: bool, answers_needed: bool = True) -> list[Example]:
    """The questions in a file, in its order. `unanswerable`: version 2.0, where some questions have no answer.

    A table in memory has a question in each row, with the Hub's columns: `id`, `context`, `question` and `answers`, a
    dict of the lists `text` and `answer_start` (or, as in the file, a list of dicts with both).

    Raises `InputError` that names the file and the location in it: for what isn't JSON or isn't SQuAD's, empty texts, a
    repeated id, and answers that contradict `is_impossible` or the version.
    """
    examples = []
    locations: dict[str, str] = {}
    for where, qa, context in _from_table(file) if isinstance(file, Table) else _questions(file):
        number = _typed(qa, "id", str, where)
        if number in locations:
            twice = f"its id {number!r} is that of {locations[number]} too"
            raise InputError(f"{where}: {twice}; give each question its own")
        locations[number] = where.rpartition(": ")[2]
        question = _text(qa, "question", where)
        if not (answers_needed or qa.get("answers") or qa.get("is_impossible")):
            examples.append(Example(question, context, number))
            continue
        golds = [
            (_typed(answer, "text", str, at), _typed(answer, "answer_start", int, at))
            for at, answer in _listed(qa, "answers", where)
        ]
        _check(qa, len(golds), unanswerable, where)
        span = locate(context, *golds[0]) if golds else None
        examples.append(Example(question, context, number, tuple(text for text, _ in golds), span))
    if not examples:
        raise InputError(f"{file}: has no questions; it must hold SQuAD's JSON")
    return examples


def locate(context: str, text: str, start: int) -> Span | None:
    """The characters of an answer that should begin at `start`: exactly there, or else within the words around there.

    That is how far the original searches; None where it isn't found: the original doesn't train on such a question.
    """
    end = start + len(text)
    if not text.strip() or start < 0 or end > len(context):
        return None
    if context[start:end] == text:
        return start, end
    words = [word.span() for word in _WORD.finditer(context)]
    firsts = [first for first, _ in words]
    if not words or end <= firsts[0]:
        return None
    region_start = words[max(bisect.bisect_right(firsts, start) - 1, 0)][0]
    region_end = words[bisect.bisect_right(firsts, end - 1) - 1][1]
    match = re.compile(_SPACE.join(map(re.escape, text.split()))).search(context, region_start, region_end)
    return match.span() if match else None


def _questions(file: Path) -> Iterator[tuple[str, Any, str]]:
    """Yields (location in the file, values, paragraph) of each question."""
    for at, article in _listed(_json(file), "data", f"{file}:"):
        for where, paragraph in _listed(article, "paragraphs", at):
            context = _text(paragraph, "context", where)
            for location, qa in _listed(paragraph, "qas", where):
                yield location, qa, context


def _from_table(table: Table) -> Iterator[tuple[str, Any, str]]:
    for row in table.rows:
        yield row.location, row.values | {"answers": _answers(row)}, _text(row.values, "context", row.location)


def _answers(row: Row) -> Any:
    """A row's answers in the file's form; the Hub has a list of texts and a list of their starts."""
    answers = row.values.get("answers")
    if not isinstance(answers, dict):
        return answers
    columns = [_typed(answers, name, list, row.location) for name in ("text", "answer_start")]
    if len(columns[0]) != len(columns[1]):
        raise InputError(f"{row.location}: its answers have {len(columns[0])} text but {len(columns[1])} answer_start")
    return [dict(zip(("text", "answer_start"), answer, strict=True)) for answer in zip(*columns, strict=True)]


def _json(file: Path) -> Any:
    text = read_text(file)
    try:
        return json_value(text, halves=True, nan=True)
    except json.JSONDecodeError as error:
        location = f"line {error.lineno}, column {error.colno}"
        if error.msg == "Extra data":
            raise InputError(f"{file}, {location}: is JSON lines; SQuAD's files are one object with 'data'") from None
        raise InputError(f"{file}, {location}: not JSON ({error.msg}); if the file was cut, copy it again") from None
    except ValueError as error:  # A number with thousands of digits, or too deep a nesting.
        raise InputError(f"{file}: unreadable JSON ({first_line(error)}); correct it or copy it again") from None


def _listed(values: Any, name: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yields (location, item) for the items of a list."""
    for i, item in enumerate(_typed(values, name, list, where)):
        yield f"{where}{' ' if where.endswith(':') else '.'}{name}[{i}]", item


def _typed(values: Any, name: str, kind: type, where: str) -> Any:
    value = values.get(name) if isinstance(values, dict) else None
    if type(value) is not kind:
        what = {str: "a text", int: "a whole number", list: "a list"}[kind]
        raise InputError(f"{where.rstrip(':')}: has no {name!r} that is {what}, as SQuAD's JSON has there")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: its {name} has half a character at {error.start}; write it anew") from None
    return value


def _text(values: Any, name: str, where: str) -> str:
    text = _typed(values, name, str, where)
    if not text.strip():
        raise InputError(f"{where}: its {name} is empty; write it or take it out")
    return text


def _check(qa: dict, answers: int, unanswerable: bool, where: str) -> None:
    impossible = qa.get("is_impossible", not answers)
    if type(impossible) is not bool:
        raise InputError(f"{where}: its is_impossible is {impossible!r}; it must be true or false")
    if impossible and not unanswerable:
        raise InputError(f"{where}: has no answer, as in version 2.0; set --task.unanswerable, or take it out")
    if impossible == bool(answers):
        what = f"is_impossible is {str(impossible).lower()}, but it has {answers or 'no'} answers"
        raise InputError(f"{where}: {what}; correct the one or the other")
