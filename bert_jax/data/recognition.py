"""Recognises the format of a text file by its first bytes, not its name; and what a file is that isn't text."""

import csv
import itertools
import re
import shlex
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.data.encodings import beside, iconv, printing, utf_16_or_32
from bert_jax.data.formats import Articles, Format, JsonLines, PlainText
from bert_jax.files.contents import json_value

_BOM = rb"(?:\xef\xbb\xbf)?\s*"
_JSON = re.compile(_BOM + rb'\{\s*"')
_PANDAS = 'import pandas, sys; pandas.read_{}(sys.argv[1]).to_json(sys.argv[2], orient="records", lines=True)'


def _with_pandas(reader: str) -> str:
    command = f"python -c '{_PANDAS.format(reader)}' {{file}} {{file}}.jsonl"
    return f"make it JSON lines, with pandas: {command}"


def _compiled(kinds: list[tuple[bytes, str, str]]) -> list[tuple[re.Pattern, str, str]]:
    return [(re.compile(pattern, re.DOTALL), what, remedy) for pattern, what, remedy in kinds]


# A pattern of the first bytes, what such a file is, and how to make text of it.
_BINARY = _compiled(
    [
        (
            rb"PK\x03\x04.{26}(?:\[Content_Types\]\.xml|mimetype)|\xd0\xcf\x11\xe0",
            "an Excel or other Office file",
            "open it there and write its table as CSV, its text as plain text (UTF-8)",
        ),
        (rb"PK\x03\x04|PK\x05\x06", "a zip archive", "unpack it: unzip {file}"),
        (rb".{257}ustar", "a tar archive", "unpack it: tar -xf {file}"),
        (rb"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: zstd -dc {file} > {file}.txt"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it: 7z x {file}"),
        (rb"Rar!\x1a\x07", "a rar archive", "unpack it: unrar x {file}"),
        (rb"PAR1", "a Parquet table", _with_pandas("parquet")),
        (rb"ARROW1|FEA1", "an Arrow table", _with_pandas("feather")),
        (rb"\xff\xff\xff\xff.{4}\x10\0\0\0", "an Arrow table", "make it JSON lines, with Dataset.to_json"),
        (rb"\x80[\x02-\x05]", "a pickle", f"if it is your own, {_with_pandas('pickle')}"),
        (rb"SQLite format 3", "an SQLite database", "write its table as CSV (UTF-8)"),
        (rb"\x89HDF", "an HDF5 file", "write its table as CSV (UTF-8)"),
        (rb"\x93NUMPY", "a NumPy array", "write its texts as plain text or CSV"),
        (rb"%PDF-", "a PDF", "take its text out: pdftotext {file}"),
        (rb"\{\\rtf", "RTF", "save it as plain text"),
        (rb"version https://git-lfs", "a pointer of Git LFS", "get the file: git lfs pull"),
    ]
)
_MARKUP = _compiled(
    [
        (
            _BOM + rb"<mediawiki\b",
            "a dump of MediaWiki (XML)",
            "take its articles out, whose files are read as they are: python -m wikiextractor.WikiExtractor {file}",
        ),
        (_BOM + rb"(?i:<!doctype\s+html|<html)\b", "a web page (HTML)", "take its text out, as with lynx -dump {file}"),
        (rb"WARC/\d", "a web archive (WARC)", "take the text of its pages out first"),
        (_BOM + rb"(?i:<\?xml|<!doctype)\b|" + _BOM + rb"<[A-Za-z][^<>\n]*>\s*\n", "XML", "take its text out first"),
        (
            _BOM + rb'\[\s*[\[{]\s*["\]}]',
            "a JSON array",
            "make it a line for each text: {text} | jq -c '.[]' > {file}.jsonl",
        ),
    ]
)
_TABLE = 'import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin, delimiter="{0}")]'
_CONTROL = bytes(sorted({*range(0x20), 0x7F} - {*b"\t\n\v\f\r\b\x1b"}))


def may_be_json(head: bytes) -> bool:
    """Whether a file begins like JSON lines; its whole first line then tells."""
    return bool(_JSON.match(head))


def not_text(file: Path, head: bytes) -> str | None:
    """What a binary file is, and how to make text of it; None where the first bytes aren't a known binary format's."""
    return _kind(file, head, _BINARY)


def _kind(file: Path, head: bytes, kinds: list[tuple[re.Pattern, str, str]]) -> str | None:
    for pattern, what, remedy in kinds:
        if pattern.match(head):
            # Not str.format(), since commands contain braces.
            remedy = remedy.replace("{file}", shlex.quote(str(file))).replace("{text}", printing(file))
            return f"is {what}, not text; {remedy}"
    return None


def format_of(file: Path, head: bytes, text_field: str) -> Format:
    """The format of a file by its first bytes, `head`, which hold the whole first line if it is JSON.

    Raises `InputError` that says what the file is, and the remedy, if it has none of our formats.
    """
    if re.match(_BOM + Articles.BEGIN.encode(), head):
        return Articles()
    if what := not_text(file, head) or _kind(file, head, _MARKUP):
        raise InputError(f"{file}: {what}")
    if encoding := utf_16_or_32(head):
        raise InputError(f"{file}: is not UTF-8; {iconv(file, encoding)}")
    if len(head.translate(None, _CONTROL)) < 0.98 * len(head):
        raise InputError(f"{file}: is binary data, not text; leave it out of corpus.files")
    if b"\n" not in head and head.count(b"\r") > 1:
        remedy = f"{printing(file)} | tr '\\r' '\\n' > {shlex.quote(str(beside(file, 'lines')))}"
        raise InputError(
            f"{file}: its lines end in carriage returns alone, as of old Macs; make them line feeds: {remedy}"
        )
    if may_be_json(head):
        return _json_lines(file, head, text_field)
    if delimiter := _delimiter(file, head, text_field):
        remedy = f"{printing(file)} | python -c '{_TABLE.format(delimiter)}' > {shlex.quote(str(file))}.jsonl"
        raise InputError(f"{file}: is a table, not text; make it JSON lines: {remedy}")
    return PlainText()


def _json_lines(file: Path, head: bytes, text_field: str) -> JsonLines:
    line = next(filter(bytes.strip, head.split(b"\n")))
    try:
        json_value(line.decode("utf-8-sig", "replace"), halves=True, nan=True)
    except ValueError:
        remedy = f"{printing(file)} | jq -c . > {shlex.quote(str(file))}.jsonl"
        raise InputError(f"{file}: is JSON, but not an object a line; make it that: {remedy}") from None
    return JsonLines(text_field)


def _delimiter(file: Path, head: bytes, text_field: str) -> str | None:
    """The separator of a table's columns; None if it isn't a table. Its header has `text_field`, or its name ends in
    .csv or .tsv."""
    lines = head.decode("utf-8-sig", "replace").splitlines()
    whole = lines if len(lines) < 2 or head.endswith(b"\n") else lines[:-1]
    named = bool({".csv", ".tsv"} & set(file.suffixes))
    for delimiter in (",", r"\t", ";"):
        try:
            rows = list(itertools.islice(csv.reader(whole, delimiter=delimiter.replace(r"\t", "\t")), 10))
        except csv.Error:
            continue
        columns = {len(row) for row in rows if row}
        if len(columns) == 1 and max(columns) > 1 and (named or text_field in rows[0]):
            return delimiter
    return "," if named and lines and lines[0].strip('" ') == text_field else None
