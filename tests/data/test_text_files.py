"""Files of text, read as what they hold or refused with a remedy that works when it is typed."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import random
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bert_jax.config import CorpusConfig, InputError
from bert_jax.data import corpora, formats

TEXT = "The river runs. It is old.\nPeople walk – home.\n\nA second one, naïve café.\n"
DOCUMENTS = [["The river runs. It is old.", "People walk – home."], ["A second one, naïve café."]]
# As allenai/c4's files have it; an empty text, and one that is null, are no documents.
JSON_LINES = (
    r'{"text":"The river runs. It is old.\nPeople walk \u2013 home.","timestamp":"2019-04-25T12:57:54Z","url":"https://a.b"}'
    "\n\n"
    '{"text": "A second one,\\u00a0na\\u00efve café.", "timestamp": "2019", "url": ""}\n'
    '{"text": "", "url": ""}\n{"text": null}\n'
)
# As WikiExtractor's README shows its output.
ARTICLES = """\
<doc id="2" url="https://it.wikipedia.org/wiki?curid=2" title="Armonium">
Armonium

The river runs. It is old.

People walk – home.

</doc>
<doc id="3" url="" title="Empty">

</doc>
<doc id="4" url="https://it.wikipedia.org/wiki?curid=4" title="A &lt; B">
A second one, naïve café.
</doc>
"""


def documents_of(*files, field="text") -> list[list[str]]:
    return list(corpora.documents(CorpusConfig("text", tuple(map(str, files)), text_field=field)))


def refusal(*files, **how) -> str:
    with pytest.raises(InputError) as error:
        documents_of(*files, **how)
    assert str(files[-1]) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=lambda pack: pack.__module__)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (TEXT, DOCUMENTS),
        (TEXT.replace("\n", "\r\n"), DOCUMENTS),
        (TEXT.replace("\n", "\r\r\n"), DOCUMENTS),
        (TEXT.replace("river", "ri\0ver"), DOCUMENTS),
        (JSON_LINES, DOCUMENTS),
        (ARTICLES, [["Armonium", *DOCUMENTS[0]], DOCUMENTS[1]]),
        ("{{Short description}}\nText.", [["{{Short description}}", "Text."]]),
        ("[Verse 1]\n<b>Bold</b>, text.", [["[Verse 1]", "<b>Bold</b>, text."]]),
        ("text, of rivers\nand, of, people\n", [["text, of rivers", "and, of, people"]]),
        ("", []),
    ],
    ids=["lines", "CRLF", "CRCRLF", "NUL", "JSON", "articles", "braces", "brackets", "commas", "empty"],
)
def test_the_content_decides_and_not_the_name(tmp_path, text, documents, pack, mark):
    for name in ("a.txt", "a.gz", "a.json"):
        (tmp_path / name).write_bytes(pack(mark + text.encode()))
        assert [[re.sub(r"\s", " ", line) for line in d] for d in documents_of(tmp_path / name)] == documents


@pytest.mark.parametrize("size", [7, 100, 1000])
@pytest.mark.parametrize("form", ["json", "articles"])
def test_wherever_a_file_is_cut_its_records_are_the_same(tmp_path, monkeypatch, size, form):
    rng = random.Random(size)
    texts = [[f"Größe {i} {j} " + "x" * rng.randint(0, 90) for j in range(rng.randint(1, 5))] for i in range(60)]
    if form == "json":
        lines = [
            json.dumps({"id": i, "text": "\n\n".join(text)}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)
        ]
    else:
        lines = ['<doc id="1" url="" title="">\n' + "\n\n".join(text) + "\n</doc>" for text in texts]
    (tmp_path / "a").write_text("\n".join(lines))
    monkeypatch.setattr(corpora, "CHUNK_BYTES", size)
    assert documents_of(tmp_path / "a") == [[line.strip() for line in text] for text in texts]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', "line 41: not JSON (.*); correct the line"),
        ('["text"]', "line 41: not a JSON object"),
        ('{"body": "x", "url": "y"}', "line 41: has no field 'text'; --corpus.text-field is one of body, url"),
        ('{"text": ["x"], "url": "y"}', r"line 41: has \['x'\] for field 'text'; --corpus.text-field is one of url"),
        ('{"text": 3}', "line 41: has 3 for field 'text'; it has no text at all"),
        ("[" * 100_000, "line 41: not JSON"),
    ],
    ids=["cut", "list", "field", "texts", "number", "deep"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_a_bad_record_is_named_with_its_line(tmp_path, monkeypatch, line, message, pack):
    monkeypatch.setattr(corpora, "CHUNK_BYTES", 200)
    (tmp_path / "a").write_bytes(pack(b'{"text": "The river runs."}\n' * 40 + line.encode() + b"\n"))
    assert re.search(message, refusal(tmp_path / "a"))


def test_the_field_is_the_configs_and_half_a_surrogate_pair_no_character(tmp_path):
    (tmp_path / "a").write_bytes(rb'{"content": "a \ud83d\ude00 b \ud83d c", "text": "no"}')
    assert documents_of(tmp_path / "a", field="content") == [["a 😀 b  c"]]


def zipped() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inner.txt", TEXT)
    return archive.getvalue()


def tarred() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        entry = tarfile.TarInfo("inner.txt")
        entry.size = len(TEXT.encode())
        file.addfile(entry, io.BytesIO(TEXT.encode()))
    return archive.getvalue()


def zstd() -> bytes:
    return subprocess.run(["zstd", "-c"], input=TEXT.encode(), stdout=subprocess.PIPE, check=True).stdout


def table(delimiter: str) -> bytes:
    text = io.StringIO()
    rows = [["id", "text"], *([str(i), "\n".join(document)] for i, document in enumerate(DOCUMENTS))]
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


RECORDS = [json.loads(line) for line in JSON_LINES.split("\n") if line]


@pytest.mark.parametrize(
    ("content", "what", "command", "result"),
    [
        (zipped(), "a zip archive", "unzip", "inner.txt"),
        (tarred(), "a tar archive", "tar", "inner.txt"),
        (gzip.compress(tarred()), "a tar archive", "tar", "inner.txt"),
        (zstd, "compressed by zstd", "zstd", "it's.txt.txt"),
        (json.dumps(RECORDS).encode(), "a JSON array", "jq", "it's.txt.jsonl"),
        (json.dumps(RECORDS, indent=2).encode(), "a JSON array", "jq", "it's.txt.jsonl"),
        (b"\n".join(json.dumps(r, indent=2).encode() for r in RECORDS), "JSON, but not an obj", "jq", "it's.txt.jsonl"),
        *((table(delimiter), "a table", "python", "it's.txt.jsonl") for delimiter in ",;\t"),
        (TEXT.replace("\n", "\r").encode(), "carriage returns alone", "tr", "it's.lines.txt"),
        (gzip.compress(TEXT.replace("\n", "\r").encode()), "carriage returns alone", "tr", "it's.lines.txt"),
        (gzip.compress(json.dumps(RECORDS).encode()), "a JSON array", "jq", "it's.txt.gz.jsonl"),
        (gzip.compress(table(",")), "a table", "python", "it's.txt.gz.jsonl"),
        (TEXT.encode("utf-16"), "not UTF-8; it seems UTF-16;", "iconv", "it's.utf8.txt"),
        (TEXT.encode("utf-16-le"), "not UTF-8; it seems UTF-16LE;", "iconv", "it's.utf8.txt"),
        (TEXT.encode("utf-16-be"), "not UTF-8; it seems UTF-16BE;", "iconv", "it's.utf8.txt"),
        (TEXT.encode("utf-32"), "not UTF-8; it seems UTF-32;", "iconv", "it's.utf8.txt"),
        (TEXT.encode("cp1252"), r"line 2: not UTF-8 \(byte 12: 0x96\)", "iconv", "it's.utf8.txt"),
        (gzip.compress(TEXT.encode("cp1252")), r"line 2: not UTF-8 \(byte 12: 0x96\)", "iconv", "it's.utf8.txt"),
        (TEXT.encode() + b"\xe9", r"line 5: not UTF-8 \(byte 0: 0xe9\); only some", "iconv", "it's.utf8.txt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_remedy_works_as_it_is_typed(tmp_path, monkeypatch, content, what, command, result):
    if not shutil.which(command):
        pytest.skip(f"needs {command}")
    content = content() if callable(content) else content
    monkeypatch.chdir(tmp_path)
    name = "it's.txt.gz" if content.startswith(b"\x1f\x8b") else "it's.txt"
    (tmp_path / name).write_bytes(content)
    message = refusal(name)
    assert re.search(what, message)
    typed = message.rsplit(": ", 1)[-1].replace("ENCODING", "CP1252")
    subprocess.run(typed, shell=True, check=True, capture_output=True)
    documents = documents_of(result)
    assert [[re.sub(r"\s", " ", line) for line in document] for document in documents] == DOCUMENTS


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + random.Random(0).randbytes(9999), "binary data"),
        (Path(sys.executable).read_bytes()[:99_999], "binary data"),
        (pickle.dumps(list(range(9999))), "a pickle"),
        (b"PAR1\x15\x04\x15", "a Parquet table.*to_json"),
        (b"\xff\xff\xff\xff\xa8\0\0\0\x10\0\0\0\0\0\n\0", "an Arrow table"),
        (b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">\n', "a dump of MediaWiki"),
        (bz2.compress(b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">\n'), "a dump of MediaWiki"),
        (b"<!DOCTYPE html>\n<html><body>", r"a web page \(HTML\)"),
        (b'<?xml version="1.0"?>\n<TEI>', "XML"),
        (b"<DOC>\n<DOCNO> AP880212-0001 </DOCNO>\n", "XML"),
        (b"WARC/1.0\r\nWARC-Type: warcinfo\r\n", "a web archive"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"{\\rtf1\\ansi hello}", "RTF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of Git LFS"),
        (gzip.compress(TEXT.encode() * 99)[:90], "damaged compressed file"),
        (bz2.compress(TEXT.encode() * 99)[:90], "damaged compressed file"),
        (bz2.compress(TEXT.encode() * 99)[:60] + b"rubbish" * 9, "damaged compressed file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_text_is_called_what_it_is(tmp_path, content, what):
    (tmp_path / "a.txt").write_bytes(content)
    message = refusal(tmp_path / "a.txt")
    assert re.search(f"a.txt.*{what}", message) and "; " in message


def test_a_file_given_twice_is_named(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    assert "is in corpus.files twice, by" in refusal(tmp_path / "a*", tmp_path / "b.txt")


def test_small_compressed_files_share_a_chunk(tmp_path):
    """Or a random next sentence had no other document to come from."""
    for i in range(9):
        (tmp_path / f"{i}.gz").write_bytes(gzip.compress(f"Document {i}.".encode()))
    (chunk,) = corpora.chunks(CorpusConfig("text", (str(tmp_path / "*.gz"),)))
    assert len(chunk.read) == 9


def test_texts_that_are_too_long_are_parted(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST_DOCUMENT", 100)
    (tmp_path / "a").write_text(json.dumps({"text": "twenty characters ok\n" * 100}))
    assert max(map(len, documents_of(tmp_path / "a"))) <= 6
