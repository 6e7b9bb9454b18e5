"""Files opened by what they hold, plain or compressed, and what to type where that isn't UTF-8."""

import bz2
import gzip
import lzma
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from bert_jax.config import InputError

# The first bytes of compressed files, what opens them, and the command that unpacks them.
COMPRESSED: list[tuple[re.Pattern[bytes], Callable, str]] = [
    (re.compile(rb"\x1f\x8b\x08"), gzip.open, "gzip"),
    (re.compile(rb"\xfd7zXZ\0"), lzma.open, "xz"),
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), bz2.open, "bzip2"),
]
DAMAGED = "UTF-8 but for some bytes"
RUSSIAN, KANA = (
    ("оеаинтсрвлкмдпуя", 0.6),
    ("のにはをたがでてとしれさるいまなかすらもこっりんあくそよきけえわめつちう", 0.3),
)
# Encodings by iconv's names, with letters and signs beyond ASCII that are frequent in their languages, and the share
# that these have at least of all such characters.
ENCODINGS = {
    "CP1252": ("äöüßÄÖÜéèêàâçîôûùëïœñóíáúãõåøæìòÉÈÀÇÁÓÑÅØÆ¿¡’‘“”–—…«»€£°", 0.9),
    "CP1250": ("ąćęłńóśźżáčďéěíňřšťúůýžőűöüäôľĺŕĄĆĘŁŃÓŚŹŻÁČĎÉĚÍŇŘŠŤÚŮÝŽŐŰÖÜ„”–’", 0.9),
    "CP1251": RUSSIAN,
    "KOI8-R": RUSSIAN,
    "CP1253": ("αοιετσνηυρπκςμλάέήίόύώ", 0.6),
    "CP932": KANA,
    "EUC-JP": KANA,
    "CP949": ("이다는을에의하고가를지은로한기도사서시어인자대나정리있전아과수해그일보", 0.25),
    "GB18030": ("的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过很", 0.15),
    "BIG5": ("的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過很", 0.15),
}
# Latin letters with marks stand in words with others, at least so many of them; of other letters it takes a few.
LATIN, IN_LATIN_WORDS, FEW = ("CP1252", "CP1250"), 0.3, 5
SAMPLE = 1 << 18  # bytes, to tell an encoding by


def opener(file: Path) -> Callable:
    """`open`, or its like for a file that is compressed; its name doesn't matter."""
    return _compression(file)[0]


def _compression(file: Path) -> tuple[Callable, str | None]:
    """What opens a file, and the command that unpacks it if it is compressed."""
    with open(file, "rb") as stream:
        start = stream.read(10)
    for pattern, function, command in COMPRESSED:
        if pattern.match(start):
            return function, command
    return open, None


def not_utf8(file: Path) -> InputError:
    """Says where a file's first byte is that isn't UTF-8, and what to type."""
    number, problem, others = 0, None, 0  # Lines before it that have characters beyond ASCII.
    with opener(file)(file, "rb") as stream:
        start = stream.read(SAMPLE)
        stream.seek(0)
        for number, line in enumerate(stream, 1):  # noqa: B007
            if problem := _problem(line):
                break
            others += not line.isascii()
        if problem is None:  # Read in parts of characters.
            return InputError(f"{file}, line {number}: not UTF-8: ends in the middle of a character; copy it again")
        sample = line + stream.read(SAMPLE)
    where = f"{file}, line {number}: not UTF-8 (byte {problem.start}: {line[problem.start]:#04x})"
    lines = [one for one in sample.split(b"\n")[: -1 if len(sample) > SAMPLE else None] if not one.isascii()]
    wrong = sum(_problem(one) is not None for one in lines)
    if encoding := utf_16_or_32(start):
        likely = [encoding]
    else:  # Text of another encoding seldom looks like UTF-8.
        likely = [DAMAGED] if others + len(lines) - wrong > wrong / 10 else _likely(b"\n".join(lines))
    return InputError(f"{where}; {iconv(file, *likely)}")


def _problem(line: bytes) -> UnicodeDecodeError | None:
    """What isn't UTF-8 in a line."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def _likely(lines: bytes) -> list[str]:
    """iconv's names of the encodings that the text is likely to have; of those that read it alike, the first."""
    likely: dict[str, str] = {}
    for name, (frequent, least) in ENCODINGS.items():
        try:
            text = lines.decode(name)
        except UnicodeDecodeError:
            continue
        others = re.findall(r"([A-Za-z]?)([^\x00-\x7f])(?=([A-Za-z]?))", text)
        in_words = sum(bool(before or after) for before, _, after in others) / len(others)
        common = sum(character in frequent for _, character, _ in others) / len(others)
        latin = in_words >= IN_LATIN_WORDS
        if common >= least and latin == (name in LATIN) and (latin or len(others) >= FEW):
            likely.setdefault(text, name)
    return list(likely.values())


def iconv(file: Path, *encodings: str) -> str:
    """What to type to have a file in UTF-8, from one of these encodings, or without its `DAMAGED` bytes."""
    target, text = shlex.quote(str(beside(file, "utf8"))), printing(file)
    if encodings == (DAMAGED,):
        # iconv takes it for an error if the last character isn't whole; the line's end prevents that.
        drop = f"({text}; echo) | iconv -c -f UTF-8 -t UTF-8 > {target}"
        return f"it is but for some bytes: correct them, or drop them: {drop}"
    convert = f"{text} | iconv -f {encodings[0] if len(encodings) == 1 else 'ENCODING'} -t UTF-8 > {target}"
    if len(encodings) == 1:
        return f"it seems {encodings[0]}; convert it: {convert}"
    return f"convert it, naming its encoding ({' or '.join(encodings) or 'CP1251, GB18030, SHIFT_JIS, ...'}): {convert}"


def printing(file: Path) -> str:
    """The command that prints a file, unpacked."""
    command = _compression(file)[1]
    return f"{f'{command} -dc' if command else 'cat'} {shlex.quote(str(file))}"


def beside(file: Path, what: str) -> Path:
    """A name for the file when it is changed: a.txt or a.txt.gz becomes a.utf8.txt."""
    plain = file.with_suffix("") if opener(file) is not open else file
    return plain.with_name(f"{plain.stem}.{what}{plain.suffix}")


def utf_16_or_32(start: bytes) -> str | None:
    """The encoding of bytes that begin with its mark, or that have a zero beside each character of ASCII."""
    if start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    zeros = [start[i::2].count(0) / max(len(start) // 2, 1) for i in (0, 1)]
    if max(zeros) > 0.2 and min(zeros) < 0.02:
        return "UTF-16BE" if zeros[0] > zeros[1] else "UTF-16LE"
    return None
