"""Makes text from strangers safe for a terminal, a log or a page: it is shown, and never acts."""

import json
import re
from typing import TextIO

# Control characters, with which the escape codes of terminals begin; line ends; marks that reverse the text around them
# (Unicode Standard Annex 9); halves of a surrogate pair, which can't be written.
ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text on one line, with each character that would act as its \\u code, which means the same in JSON."""
    return ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def json_line(values: dict) -> str:
    """The values as one line of JSON. Raises ValueError for NaN and infinity, which JSON doesn't have."""
    return harmless(json.dumps(values, ensure_ascii=False, allow_nan=False))


def printable(text: str) -> str:
    """The text on one line, with a code for every character that can't be seen, so that names can be told apart."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(*lines: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Prints each text as one harmless line, to standard output or `file`.

    Whatever the package tells a person goes through here, but for what `predict` writes, which is JSON.
    """
    print(*map(harmless, lines), sep="\n", file=file, flush=flush)
