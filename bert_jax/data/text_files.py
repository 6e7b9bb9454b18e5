"""Text files as people have them: known by what is in them, whatever their names say."""

import bz2
import gzip
import io
import lzma
import re
import shlex
import zipfile
import zlib
from pathlib import Path

from bert_jax.config import InputError

# How compressed files begin: the suffix, how to read them, and the command that unpacks them.
COMPRESSED = {
    b"\x1f\x8b": (".gz", gzip.open, "gzip -dc"),
    b"\xfd7zXZ\0": (".xz", lzma.open, "xz -dc"),
    b"BZh": (".bz2", bz2.open, "bzip2 -dc"),
}
AS_CSV = "write its table as CSV (UTF-8)"
WITH_PANDAS = "write its table as CSV: pandas.{}(FILE).to_csv(NEW, index=False)"
# How files begin that aren't text, and what they are.
NOT_TEXT = (
    (rb"\xd0\xcf\x11\xe0", f"is an old Excel or Word file; open it there and {AS_CSV}"),
    (rb"PAR1", f"is a Parquet file; {WITH_PANDAS.format('read_parquet')}"),
    (rb"ARROW1|FEA1|\xff\xff\xff\xff", f"is an Arrow file; {WITH_PANDAS.format('read_feather')}"),
    (rb"\x80[\x02-\x05]", f"is a pickle; if it is your own, {WITH_PANDAS.format('read_pickle')}"),
    (rb"SQLite format 3", f"is an SQLite database; {AS_CSV}"),
    (rb"\x89HDF", f"is an HDF5 file; {AS_CSV}"),
    (rb"\x93NUMPY", f"is a NumPy file; {AS_CSV}"),
    (rb"%PDF|\{\\rtf", "is a PDF or RTF document; save it as plain text"),
    (rb"7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar", "is packed (7z, rar, zstd or tar); unpack it"),
    (rb"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch that with git lfs pull"),
    (rb"(?i)\s*<(?:!doctype html|html\b).*</html>\s*\Z", "is a web page, not the file; download the file itself"),
)
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


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, plain or compressed, without a byte order mark; lines that end in CR alone end in LF.

    Raises `InputError` that names the file, what it is where it isn't text, and what to do.
    """
    data = _content(file)
    if what := _not_text(data):
        raise InputError(f"{file}: {what}")
    try:
        text = data.decode().lstrip("\ufeff")
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    if "\0" in text:
        raise _with_nuls(file, data)
    returns = text.count("\r")
    if returns and returns - text.count("\r\n") > text.count("\n"):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def plain_name(file: Path) -> Path:
    """The name without the suffix of a compressed file."""
    suffixes = tuple(suffix for suffix, _, _ in COMPRESSED.values())
    return file.with_suffix("") if file.suffix in suffixes else file


def _compression(start: bytes) -> tuple | None:
    return next((values for magic, values in COMPRESSED.items() if start.startswith(magic)), None)


def _content(file: Path) -> bytes:
    try:
        data = file.read_bytes()
        if packed := _compression(data):
            with packed[1](io.BytesIO(data)) as stream:
                return stream.read()
        return data
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{file}: is a folder; name a file in it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError):
        raise InputError(f"{file}: not a whole {packed[0]} file; copy it again") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or f'damaged ({error}); copy it again'}") from None


def _not_text(data: bytes) -> str | None:
    """What a file is that isn't text, and what to do; None where nothing says that."""
    if data.startswith(b"PK\x03\x04"):
        try:
            names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        except zipfile.BadZipFile:
            names = []
        tables = [name for name in names if name in ("xl/workbook.xml", "content.xml", "word/document.xml")]
        return f"is an Excel or other Office file; open it there and {AS_CSV}" if tables else "is a zip file; unpack it"
    return next((what for start, what in NOT_TEXT if re.match(start, data, re.DOTALL)), None)


def not_utf8(file: Path) -> InputError:
    """Says where a file's first byte is that isn't UTF-8, and the command that makes it UTF-8."""
    packed = _compression(_start(file))
    with (packed[1] if packed else open)(file, "rb") as stream:
        start = stream.read(SAMPLE)
        stream.seek(0)
        others = 0  # Lines before it that have characters beyond ASCII.
        for number, line in enumerate(stream, 1):  # noqa: B007
            if problem := _problem(line):
                break
            others += not line.isascii()
        else:
            return InputError(f"{file}, line {number}: not UTF-8: ends in the middle of a character; copy it again")
        sample = line + stream.read(SAMPLE)
    where = f"{file}, line {number}: not UTF-8 (byte {problem.start}: {line[problem.start]:#04x})"
    if encoding := _utf16(start):
        return InputError(f"{where} but {encoding}; convert it: {_iconv(file, packed, encoding)}")
    lines = [one for one in sample.split(b"\n")[: -1 if len(sample) > SAMPLE else None] if not one.isascii()]
    wrong = sum(_problem(one) is not None for one in lines)
    if others + len(lines) - wrong > wrong / 10:
        drop = _iconv(file, packed, "UTF-8", " -c")
        return InputError(f"{where}, as other lines are; correct it, or drop such bytes: {drop}")
    likely = _encodings(b"\n".join(lines))
    if len(likely) == 1:
        return InputError(f"{where} but, it seems, {likely[0]}; convert it: {_iconv(file, packed, likely[0])}")
    perhaps = f" ({' or '.join(likely)}, perhaps)" if likely else ""
    return InputError(f"{where}; convert it, naming its encoding{perhaps}: {_iconv(file, packed, 'ENCODING')}")


def _start(file: Path) -> bytes:
    with open(file, "rb") as stream:
        return stream.read(8)


def _with_nuls(file: Path, data: bytes) -> InputError:
    place = f"{file}, line {data[: data.index(0)].count(10) + 1}"
    if encoding := _utf16(data[:SAMPLE]):
        command = _iconv(file, _compression(_start(file)), encoding)
        return InputError(f"{place}: {encoding}, not UTF-8; convert it: {command}")
    return InputError(f"{place}: has a NUL byte, so it is damaged or no text; copy it again, or write it anew")


def _utf16(start: bytes) -> str | None:
    """iconv's name of the encoding of two or four bytes a character; None where it is another one."""
    if start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    for encoding in ("UTF-16LE", "UTF-16BE"):
        text = start[: len(start) // 2 * 2].decode(encoding, errors="ignore")
        # In other encodings these, two bytes together, are something else.
        if 0 < sum(map(start.count, b"\n\t ,")) <= 2 * sum(map(text.count, "\n\t ,")):
            return encoding
    return None


def _problem(line: bytes) -> UnicodeDecodeError | None:
    """What isn't UTF-8 in a line."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def _encodings(lines: bytes) -> list[str]:
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


def _iconv(file: Path, packed: tuple | None, encoding: str, options: str = "") -> str:
    """The command, for a shell, that writes the file as UTF-8 under another name."""
    name = plain_name(file)
    new = shlex.quote(str(name.with_name(f"{name.stem}.utf8{name.suffix}")))
    old = shlex.quote(str(file))
    command = f"iconv{options} -f {encoding} -t UTF-8"
    return f"{packed[2]} {old} | {command} > {new}" if packed else f"{command} {old} > {new}"
