"""Opens text files, plain or compressed, by their content; and gives the command that converts them to UTF-8."""

import bz2
import gzip
import lzma
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from bert_jax.config import InputError

# The first bytes of compressed files, the function that opens them, and the command that unpacks them.
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
# Encodings by iconv's names, with the characters beyond ASCII that are frequent in their languages, and the least share
# that these have of all characters beyond ASCII.
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
# Encodings of Latin letters; the least share of letters with marks that stand beside ASCII letters in them; and the
# least number of characters beyond ASCII by which any other encoding is recognised.
LATIN, IN_LATIN_WORDS, FEW = ("CP1252", "CP1250"), 0.3, 5
SAMPLE = 1 << 18  # bytes by which an encoding is recognised


def opener(file: Path) -> Callable:
    """`open`, or the equivalent function for a compressed file, whatever the file's name."""
    return _compression(file)[0]


def _compression(file: Path) -> tuple[Callable, str | None]:
    """The function that opens a file, and the command that unpacks it if it is compressed."""
    with open(file, "rb") as stream:
        start = stream.read(10)
    for pattern, function, command in COMPRESSED:
        if pattern.match(start):
            return function, command
    return open, None


def not_utf8(file: Path) -> InputError:
    """The error that names the first byte of a file that isn't UTF-8, and the command that converts the file."""
    number, problem, others = 0, None, 0  # `others`: the lines before it with characters beyond ASCII.
    with opener(file)(file, "rb") as stream:
        start = stream.read(SAMPLE)
        stream.seek(0)
        for number, line in enumerate(stream, 1):  # noqa: B007
            if problem := _problem(line):
                break
            others += not line.isascii()
        if problem is None:  # Every line is UTF-8, but not the part that was read.
            return InputError(f"{file}, line {number}: not UTF-8: ends in the middle of a character; copy it again")
        sample = line + stream.read(SAMPLE)
    where = f"{file}, line {number}: not UTF-8 (byte {problem.start}: {line[problem.start]:#04x})"
    lines = [line for line in sample.split(b"\n")[: -1 if len(sample) > SAMPLE else None] if not line.isascii()]
    wrong = sum(_problem(line) is not None for line in lines)
    if encoding := utf_16_or_32(start):
        likely = [encoding]
    else:  # Text of another encoding seldom looks like UTF-8.
        likely = [DAMAGED] if others + len(lines) - wrong > wrong / 10 else _likely(b"\n".join(lines))
    return InputError(f"{where}; {iconv(file, *likely)}")


def _problem(line: bytes) -> UnicodeDecodeError | None:
    """The error of decoding a line as UTF-8; None where it is UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def _likely(lines: bytes) -> list[str]:
    """iconv's names of the likely encodings of the text; only the first of those that decode it to the same text."""
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
    """The command that converts a file to UTF-8 from one of these encodings, or drops its `DAMAGED` bytes."""
    target, text = shlex.quote(str(beside(file, "utf8"))), printing(file)
    if encodings == (DAMAGED,):
        # iconv takes it for an error if the last character isn't whole; the line's end prevents that.
        drop = f"({text}; echo) | iconv -c -f UTF-8 -t UTF-8 > {target}"
        return f"only some bytes aren't: correct them, or drop them: {drop}"
    convert = f"{text} | iconv -f {encodings[0] if len(encodings) == 1 else 'ENCODING'} -t UTF-8 > {target}"
    if len(encodings) == 1:
        return f"it seems {encodings[0]}; convert it: {convert}"
    return f"convert it, naming its encoding ({' or '.join(encodings) or 'CP1251, GB18030, SHIFT_JIS, ...'}): {convert}"


def printing(file: Path) -> str:
    """The command that prints a file's unpacked content."""
    command = _compression(file)[1]
    return f"{f'{command} -dc' if command else 'cat'} {shlex.quote(str(file))}"


def beside(file: Path, what: str) -> Path:
    """A name beside the file for its changed content: a.txt or a.txt.gz becomes a.utf8.txt."""
    plain = file.with_suffix("") if opener(file) is not open else file
    return plain.with_name(f"{plain.stem}.{what}{plain.suffix}")


def utf_16_or_32(start: bytes) -> str | None:
    """UTF-16 or UTF-32, where the bytes begin with its byte order mark or have a zero beside each ASCII character."""
    if start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    zeros = [start[i::2].count(0) / max(len(start) // 2, 1) for i in (0, 1)]
    if max(zeros) > 0.2 and min(zeros) < 0.02:
        return "UTF-16BE" if zeros[0] > zeros[1] else "UTF-16LE"
    return None
