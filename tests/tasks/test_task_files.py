"""Text files by what is in them: other encodings with a command that mends them, other formats by their names."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import sqlite3
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import InputError
from bert_jax.tasks import files
from bert_jax.tasks.files import read_text

GERMAN = "Das ist schön, aber für die Größe überraschend; Müller äußert sich."
FRENCH = "C’est à l’école que l’élève a été déçu. Français, garçon, hôtel, cœur, Noël."
POLISH = "Być może się uda, książka jest świetna, dziękuję bardzo. Łódź, źdźbło."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy. Děkuji, že jste přišli."
RUSSIAN = "Это очень хороший фильм, мне понравился. Плохая книга, не советую."
GREEK = "Η ταινία ήταν πολύ καλή, μου άρεσε."
JAPANESE = "この映画はとても面白かったです。本はあまり良くなかった。"
KOREAN = "이 영화는 정말 재미있었습니다. 책은 별로였어요. 한국어로 쓴 글입니다."
SIMPLIFIED = "这部电影很好看，我非常喜欢。这本书不好，不推荐。"
TRADITIONAL = "這部電影很好看，我非常喜歡。這本書不好，不推薦，他們說可以。"

TOLD = [
    *((GERMAN, "cp1252"), (FRENCH, "cp1252"), ("A nice café", "cp1252"), (POLISH, "cp1250"), (CZECH, "cp1250")),
    *((RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (GREEK, "cp1253"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp")),
    *((KOREAN, "cp949"), (SIMPLIFIED, "gb18030"), (TRADITIONAL, "big5"), (GERMAN, "utf-16"), (KOREAN, "utf-16")),
    *((GERMAN, "utf-16-le"), (GERMAN, "utf-16-be"), (RUSSIAN, "utf-16-le"), (SIMPLIFIED, "utf-32")),
]


def told(file) -> str:
    with pytest.raises(InputError) as error:
        read_text(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "encoding", "suffix"),
    [*((*one, ".csv") for one in TOLD), (GERMAN, "cp1252", ".csv.gz"), (GERMAN, "utf-16", ".csv.xz")],
)
def test_the_command_that_is_printed_makes_the_file_utf8(tmp_path, text, encoding, suffix):
    text = f"text,label\n{text},1\nplain,0\n"
    file, new = tmp_path / f"my file{suffix}", tmp_path / "my file.utf8.csv"
    pack = {".csv": bytes, ".csv.gz": gzip.compress, ".csv.xz": lzma.compress}[suffix]
    file.write_bytes(pack(text.encode(encoding)))
    subprocess.run(told(file).rpartition("convert it: ")[2], shell=True, check=True, cwd=tmp_path)
    assert read_text(new) == text and new.read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("El niño comió. ¿Qué?", "cp1252"),
        ("Árvíztűrő tükörfúrógép", "cp1250"),
        ("Işık şöyle", "cp1254"),
        ("ÿ", "cp1252"),
    ],
)
def test_an_encoding_that_can_t_be_told_is_asked_for(tmp_path, text, encoding):
    file, new = tmp_path / "a.csv", tmp_path / "a.utf8.csv"
    file.write_bytes(f"text,label\n{text},1\n".encode(encoding))
    said, _, command = told(file).rpartition(": ")
    assert "naming its encoding" in said
    subprocess.run(command.replace("ENCODING", encoding), shell=True, check=True)
    assert read_text(new) == f"text,label\n{text},1\n"


def test_a_damaged_byte_in_utf8_is_no_other_encoding(tmp_path):
    file, new = tmp_path / "a.txt", tmp_path / "a.utf8.txt"
    file.write_bytes("größer\nschön\n".encode() + b"kaputt\xff hier\n" + "später\n".encode())
    said = told(file)
    assert f"{file}, line 3: not UTF-8 (byte 6: 0xff); only some bytes aren't" in said
    subprocess.run(said.rpartition("drop them: ")[2], shell=True)  # iconv says that it left something out.
    assert read_text(new) == "größer\nschön\nkaputt hier\nspäter\n\n"
    file.write_bytes(b"fine\nnot \0 fine\n")
    assert "line 2: has a NUL byte" in told(file)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_packed_files_are_known_whatever_they_are_called(tmp_path, pack):
    (tmp_path / "a.txt").write_bytes(pack(b"\xef\xbb\xbfone\r\ntwo\n"))
    assert read_text(tmp_path / "a.txt") == "one\r\ntwo\n"


def test_what_never_ends_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/zero")):
        assert told(file) == f"{file}: a device or a pipe, must be a file"
    (tmp_path / "a.txt").write_bytes(gzip.compress(bytes(3 << 20)))
    monkeypatch.setattr(files, "MOST", 2 << 20)
    assert "larger than 2,097,152 bytes, unpacked; take a part of it" in told(tmp_path / "a.txt")


def test_cr_alone_ends_lines_where_there_is_nothing_else(tmp_path):
    for data, text in (
        (b"a\tb\rc\td\r", "a\tb\nc\td\n"),
        (b"a\rb\rc\n", "a\nb\nc\n"),
        (b"a\r\nb\rc\r\n", "a\r\nb\rc\r\n"),
    ):
        (tmp_path / "a").write_bytes(data)
        assert read_text(tmp_path / "a") == text


def zipped(*names: str) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("train.csv"))
    return stream.getvalue()


def parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a"], "label": [1]}), stream := io.BytesIO())
    return stream.getvalue()


def arrow(new: str) -> bytes:
    import pyarrow

    table = pyarrow.table({"text": ["a"]})
    with getattr(pyarrow.ipc, new)(stream := io.BytesIO(), table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def sqlite(folder) -> bytes:
    with sqlite3.connect(folder / "db") as database:
        database.execute("create table a (b)")
    return (folder / "db").read_bytes()


def numpy() -> bytes:
    np.save(stream := io.BytesIO(), np.zeros(2))
    return stream.getvalue()


OTHERS = {
    "an Excel or other Office file": lambda _: zipped("[Content_Types].xml", "xl/workbook.xml"),
    "a zip archive": lambda _: zipped("train.csv"),
    "a tar archive": lambda _: gzip.compress(tarred()),
    "Parquet": lambda _: parquet(),
    "Arrow": lambda _: arrow("new_file"),
    "is an Arrow": lambda _: arrow("new_stream"),
    "SQLite": sqlite,
    "pickle": lambda _: pickle.dumps({"text": ["a"]}),
    "NumPy": lambda _: numpy(),
    "PDF": lambda _: b"%PDF-1.4\n%\xe2\xe3",
    "a pointer of Git LFS": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "web page": lambda _: b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n",
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_isn_t_text_is_named(tmp_path, what):
    (tmp_path / "train.csv").write_bytes(OTHERS[what](tmp_path))
    assert what in told(tmp_path / "train.csv")


def test_folders_and_missing_files_are_named(tmp_path):
    assert "is a folder" in told(tmp_path)
    assert "no such file" in told(tmp_path / "none")
    (tmp_path / "cut.xz").write_bytes(lzma.compress(b"text" * 100)[:40])
    assert "not a whole compressed file" in told(tmp_path / "cut.xz")
