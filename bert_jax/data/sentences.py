"""Splits lines into sentences by the punctuation of all scripts: roughly, which is enough for next-sentence pairs."""

import re

# To be raised when lines are split differently: unfinished examples are then not continued.
VERSION = 2

# These end a sentence wherever they stand: Unicode's Sentence_Terminal (version 17) without the ambiguous ones below,
# and Tibetan's shad, which Unicode leaves out since it ends clauses too.
_BMP_TERMINALS = (
    "\u0f0d-\u0f12"
    "\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104a\u104b\u1362\u1367\u1368"
    "\u166e\u1735\u1736\u17d4\u17d5\u1803\u1809\u1944\u1945\u1aa8-\u1aab\u1b4e\u1b4f\u1b5a\u1b5b\u1b5e\u1b5f"
    "\u1b7d-\u1b7f\u1c3b\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047-\u2049\u2cf9-\u2cfb\u2e2e\u2e3c\u2e53\u2e54\u2e60\u2e61"
    "\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb"
    "\ufe12\ufe15\ufe16\ufe56\ufe57\uff01\uff1f\uff61"
)
_TERMINALS = _BMP_TERMINALS + (
    "\U00010a56\U00010a57\U00010f55-\U00010f59"
    "\U00010f86-\U00010f89\U00011047\U00011048\U000110be-\U000110c1\U00011141-\U00011143\U000111c5\U000111c6"
    "\U000111cd\U000111de\U000111df\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U000113d4\U000113d5"
    "\U0001144b\U0001144c\U000115c2\U000115c3\U000115c9-\U000115d7\U00011641\U00011642\U0001173c-\U0001173e"
    "\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42\U00011ef7\U00011ef8"
    "\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U00016d6e\U00016d6f"
    "\U00016e98\U0001bc9f\U0001da88"
)
# Full stops are in numbers and abbreviations too, and ! and ? in titles: they end a sentence only where white space
# follows, and then no small letter.
_STOPS = r".!?\u2024\u2026"
_CLOSING = r"”’)\]}»›」』）】》〉〕］｣"
_OPENING = r"\"'“‘„‚«‹»(\[{¿¡「『（【《〈〔［｢"
_GREEK, _ARMENIAN, _INDIAN, _IDEOGRAPHS = (
    r"\u0370-\u03ff\u1f00-\u1fff",
    r"\u0561-\u0587",
    r"\u0900-\u0dff",
    r"\u3041-\u9fff",
)
# Thai and Lao have no such mark and no spaces between words: a space between two words ends a phrase.
_UNMARKED = r"\u0e01-\u0e2e\u0e30-\u0e45\u0e47-\u0e4e\u0e81-\u0eae\u0eb0-\u0ec5\u0ec8-\u0ece\u0edc-\u0edf"
_SENTENCE_END = re.compile(
    # One character class first, since `re` searches for that quickly; what follows looks back at it. (Each range beyond
    # U+FFFF costs time, so one wide range covers them all.)
    rf"[{_STOPS};:|{_BMP_TERMINALS}\u1361．﹒{_UNMARKED}\U00010a56-\U0001da88](?:"
    # Stops; and keyboard substitutes for a script's own mark: ; for Greek, : for Armenian, | for the scripts of India.
    rf"(?:(?<=[{_STOPS}])(?<![{_STOPS}]{{2}})[{_STOPS}]*|(?<=[{_GREEK}];)(?=\s+[{_GREEK}])|(?<=[{_ARMENIAN}]:)"
    rf"|(?:(?<=[{_INDIAN}]\|)|(?<=[{_INDIAN}]\s\|))\|?)[\"'“‘{_CLOSING}]*\s+(?=[{_OPENING}]*(?P<next>[^\W_]))"
    # Terminals; Ethiopic's, written as two word separators; stops and marks of another width than their script's.
    rf"|(?:(?<=[{_TERMINALS}])|(?<=\u1361)\u1361|(?<=[．﹒])(?!\d)|(?<=[{_IDEOGRAPHS}][!?])[!?]*(?=[{_IDEOGRAPHS}]))"
    # A number between two terminals is the number of a verse.
    rf"(?:\s*(?:\d+\s*)?[{_TERMINALS}]|[.!?])*(?:[{_CLOSING}]|[\"'“‘](?=\s|$))*\s*"
    rf"|(?<=[{_UNMARKED}])\s+(?=[{_UNMARKED}]))"
)
_ABBREVIATIONS = frozenset(
    [
        *("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Jr", "Sr", "Gen", "Col", "Capt", "Lt", "Sgt", "Rev", "Hon", "Gov"),
        *("Sen", "Rep", "Mt", "Inc", "Ltd", "Co", "Corp", "No", "vs", "cf", "ca", "e.g", "i.e", "Fig"),
    ]
)
# In text without capitals, "no." is a word.
_LOWERED = frozenset(map(str.lower, _ABBREVIATIONS)) - {"no"}
_LONGEST_ABBREVIATION = max(map(len, _ABBREVIATIONS))


def split_sentences(line: str) -> list[str]:
    """The sentences of a line, in order and without white space around them; nothing else is dropped."""
    capitals = line != line.lower()
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(line):
        if end["next"] and (capitals and _is_small(end["next"]) or _is_abbreviation(line, end.start(), capitals)):
            continue
        sentences.append(line[start : end.end()].strip())
        start = end.end()
    rest = line[start:].strip()
    return sentences + [rest] if rest else sentences


def _is_small(letter: str) -> bool:
    """Whether the letter has a capital form that begins sentences, which Georgian letters don't have."""
    return letter != letter.title()


def _is_abbreviation(line: str, stop: int, capitals: bool) -> bool:
    """Whether the mark at `stop` is the full stop of an initial ("J. Smith") or an abbreviation."""
    if line[stop] != "." or not line[stop + 1].isspace():
        return False
    words = line[max(0, stop - _LONGEST_ABBREVIATION - 2) : stop].split()
    last = words[-1].lstrip("(\"'“‘[") if words else ""
    return last in (_ABBREVIATIONS if capitals else _LOWERED) or (len(last) == 1 and (last.isupper() or not capitals))
