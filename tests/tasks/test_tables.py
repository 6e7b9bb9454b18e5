"""Tables as people's programs write them: read back as they were, or refused by line."""

import csv
import io
import json

import pytest

from bert_jax.config import InputError
from bert_jax.tasks.tables import read_table

ROWS = [
    {"text": 'He said "no", twice', "label": "a"},
    {"text": "one; two | three", "label": "b"},
    {"text": "", "label": "b"},
    {"text": "two\nlines\tand a tab", "label": "a"},
    {"text": "  spaces, and ünïcödé ", "label": "b"},
]


def written(rows: list[dict], **dialect) -> str:
    """As Python's csv writes it, with which pandas does too."""
    writer = csv.DictWriter(stream := io.StringIO(newline=""), rows[0], **{"lineterminator": "\n", **dialect})
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read(file, content: str | bytes, **how) -> list[dict]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row.values for row in read_table(file, **how)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.data", "a"])
def test_what_csv_writes_is_read_back_whatever_its_name(tmp_path, name, separator, quoting, end):
    content = written(ROWS, delimiter=separator, quoting=quoting, lineterminator=end)
    assert read(tmp_path / name, content) == ROWS


def json_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
@pytest.mark.parametrize("write", [json_lines, json.dumps, lambda rows: json.dumps(rows, indent=1)])
def test_json_lines_and_one_list(tmp_path, name, write):
    assert read(tmp_path / name, write(ROWS)) == ROWS
    rows = read_table(tmp_path / name)
    assert rows[1].location.endswith((f"{name}, line 2", f"{name}, record 2"))


# Tabs between columns: quotes as characters, as GLUE and many others have them.
PLAIN = [
    'it is "good"\t1\n"bad" it is\t0\n',
    '"Hello!"\t1\n',
    '"a\t1\n',
    '""\'s\t1\n',
    '"good", he said\t1\nhe said "a, b"\t0\n',
    '5" disk\t1\n',
]


@pytest.mark.parametrize("lines", PLAIN)
def test_quotes_between_tabs_are_characters(tmp_path, lines):
    expected = [dict(zip(("text", "label"), line.split("\t"), strict=True)) for line in lines.splitlines()]
    assert read(tmp_path / "a.tsv", "text\tlabel\n" + lines) == expected
    assert read(tmp_path / "a.tsv", "text\tlabel\n" + lines, ragged=True) == expected


def test_quotes_between_tabs_that_are_csv_s_are_said(tmp_path, capsys):
    excel = 'text\tlabel\n"Hello, world"\t1\n"""Hi"" he said"\t0\n'
    assert [row["text"] for row in read(tmp_path / "a.txt", excel)] == ["Hello, world", '"Hi" he said']
    assert "a.txt: cells in quotes are read as CSV has them" in capsys.readouterr().err
    assert [row["text"] for row in read(tmp_path / "a.txt", excel, ragged=True)] == [
        '"Hello, world"',
        '"""Hi"" he said"',
    ]


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_without_a_header_all_lines_say_what_parts_them(tmp_path, separator):
    content = f"good, very{separator}1\nbad{separator}0\n" if separator != "," else '"good, very",1\nbad,0\n'
    expected = [{"1": "good, very", "2": "1"}, {"1": "bad", "2": "0"}]
    for name in ("a.csv", "a.tsv", "a.txt"):
        assert read(tmp_path / name, content, header=False, width=2) == expected


def test_texts_alone_are_whole_lines_and_keep_their_place(tmp_path):
    lines = ["", "Hello, world; or | not", "", '"quoted', "", ""]
    content = "".join(line + "\n" for line in lines)
    assert read(tmp_path / "a.txt", content, header=False) == [{"1": line} for line in lines]
    assert read(tmp_path / "a.txt", "text\n" + content) == [{"text": line} for line in lines]
    rows = read_table(tmp_path / "a.txt")
    assert [row.location.rpartition(" ")[2] for row in rows] == ["2", "3", "4", "5", "6", "7"]
    assert read(tmp_path / "a.csv", 'text\none\n\n""\n"two, three"\n') == [
        {"text": text} for text in ("one", "", "", "two, three")
    ]
    # Of several columns a blank line is none.
    assert read(tmp_path / "a.csv", "\ntext,label\none,1\n\ntwo,2\n\n") == [
        {"text": "one", "label": "1"},
        {"text": "two", "label": "2"},
    ]


def test_cr_alone_and_a_second_mark(tmp_path):
    assert read(tmp_path / "a.csv", "text,label\rone,1\rtwo,2\r") == read(
        tmp_path / "a.csv", "text,label\none,1\ntwo,2"
    )
    assert read(tmp_path / "a.tsv", "text\tlabel\rone\t1\r") == [{"text": "one", "label": "1"}]
    assert read(tmp_path / "a.tsv", "\ufeff\ufefftext \t label\none\t1\n") == [{"text": "one", "label": "1"}]


@pytest.mark.parametrize(
    "again", ["text,label,n", "Text, LABEL ,n", "\ufefftext,label,n", '"text","label","n"', "n,label,text"]
)
def test_a_header_that_comes_again_is_refused(tmp_path, again):
    with pytest.raises(InputError, match=r"a\.csv, line 3: is the header again"):
        read(tmp_path / "a.csv", f"text,label,n\none,a,1\n{again}\ntwo,b,2\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "sep=;\ntext;label\none;a\n", "line 1: is only for Excel"),
        ("a.md", "| text | label |\n|---|:-:|\n| one | a |\n", "line 2: is a rule under a header"),
        ("a.jsonl", '{"text": "one", "label": 1, "label": 2}\n', "line 1: .*a name comes twice.*text, label, label"),
        ("a.csv", "text,label\none,a,b\n", "line 2: has 3 columns, the first line has 2"),
        ("a.csv", "text,label\none,a\n# end\n", "line 3: has 1 columns"),
        ("a.csv", "text,label\none,a\r\ntwo,b\n\x1a", "line 4: has 1 columns"),
    ],
)
def test_lines_that_are_no_rows_are_refused(tmp_path, name, content, message):
    with pytest.raises(InputError, match=rf"{name}, {message}"):
        read(tmp_path / name, content)


def test_columns_without_a_name_may_be_several(tmp_path):
    assert read(tmp_path / "a.csv", "text,label,,\none,a,,\n") == [{"text": "one", "label": "a", "": ""}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a",\n "label": 1}\n', "line 1: not JSON.*an object on each line, or all in one list"),
        ('[{"text": "a"}, 3]', "nor a list of them"),
        ('[{"text": "a"}', "not JSON"),
        ("[]", "holds no rows"),
        ("", "holds no rows"),
    ],
)
def test_other_json_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.json", content)
