"""Text of others, as it may stand in a terminal, a log or a page: it says what it says, and does nothing."""

import json
import re

# Control characters, with the escape codes of terminals that begin with them; line ends; marks that reverse what stands
# around them (Unicode Standard Annex 9); halves of a character, which can't be written.
ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """On one line, with each character that would act there as its code, which in JSON means the same."""
    return ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_line(values: dict) -> str:
    """Raises ValueError for NaN and infinity, of which JSON knows nothing."""
    return harmless(json.dumps(values, ensure_ascii=False, allow_nan=False))


def printable(text: str) -> str:
    """On one line, with a code for all that isn't seen, harmless or not: so that a name is told from another."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
