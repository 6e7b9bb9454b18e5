"""Documents of the embedded corpus, of text files, and of TFDS data sets."""

import gzip
import lzma
import random
import shutil

import numpy as np
import pytest

from bert_jax.config import CorpusConfig, InputError
from bert_jax.data import corpora, formats

TEXT = "One paragraph.\nAnother.\n\n\n  \nSecond document, с русским.\r\n\n"
DOCUMENTS = [["One paragraph.", "Another."], ["Second document, с русским."]]


def test_text_files_plain_and_packed(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    with gzip.open(tmp_path / "b.txt.gz", "wt", newline="") as file:
        file.write(TEXT)
    with lzma.open(tmp_path / "c.txt.xz", "wt", newline="") as file:
        file.write(TEXT)
    assert list(corpora.documents(CorpusConfig(source="text", files=(str(tmp_path / "*.txt*"),)))) == DOCUMENTS * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "fine\nna\xefve\n".encode("latin-1"), "line 2: not UTF-8"),
        ("cut.gz", gzip.compress(TEXT.encode() * 1000, mtime=0)[:100], "damaged compressed file"),
        ("rubbish.xz", lzma.compress(TEXT.encode() * 1000)[:40] + b"rubbish" * 99, "damaged compressed file"),
    ],
)
def test_unreadable_files_are_named_with_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        list(corpora.documents(CorpusConfig(source="text", files=(str(tmp_path / name),))))
    assert str(tmp_path / name) in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(corpora.documents(CorpusConfig(source="text", files=(str(tmp_path / "none-*.txt"),))))
    with pytest.raises(InputError, match="is a folder"):
        list(corpora.documents(CorpusConfig(source="text", files=(str(tmp_path),))))


def test_python_docs_are_megabytes_of_prose_and_always_the_same():
    first, second = list(corpora.python_docs()), list(corpora.python_docs())
    assert first == second
    assert len(first) > 400
    assert sum(len(line) for document in first for line in document) > 1_000_000
    assert not any(">>>" in line for document in first for line in document)


def test_a_corpus_without_blank_lines_is_parted(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST_DOCUMENT", 100)
    (tmp_path / "a.txt").write_text("twenty characters ok\n" * 100)
    documents = list(corpora.documents(CorpusConfig(source="text", files=(str(tmp_path / "a.txt"),))))
    assert sum(map(len, documents)) == 100
    assert max(map(len, documents)) <= 6


@pytest.mark.parametrize("size", [7, 100, 1000, 10**6])
def test_wherever_a_file_is_cut_its_documents_are_the_same(tmp_path, monkeypatch, size):
    rng = random.Random(size)
    text = "\n\n".join("\n".join(f"Größe {i} 中文 {j}" for j in range(rng.randint(1, 9))) for i in range(200))
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text("small\n")
    (tmp_path / "c.txt").write_text("another")
    monkeypatch.setattr(corpora, "CHUNK_BYTES", size)
    config = CorpusConfig(source="text", files=(str(tmp_path / "*.txt"),))
    expected = [d.split("\n") for d in text.split("\n\n")] + [["small"], ["another"]]
    assert list(corpora.documents(config)) == expected
    assert len(list(corpora.chunks(config))) >= len(text.encode()) // size


@pytest.mark.parametrize("separator", ["\n", " ", ""])
def test_a_file_without_blank_lines_is_cut_at_lines_or_spaces_or_characters(tmp_path, monkeypatch, separator):
    monkeypatch.setattr(corpora, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(formats, "CUT_WITHIN", 100)
    text = separator.join(f"wörter{i}中" for i in range(2000))
    (tmp_path / "a.txt").write_text(text)
    chunks = list(corpora.chunks(CorpusConfig(source="text", files=(str(tmp_path / "a.txt"),))))
    lines = [line for chunk in chunks for document in chunk.documents(clean=False) for line in document]
    assert separator.join(lines) == text
    assert max(len(line.encode()) for line in lines) <= 1100


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("R&amp;D &lt;b&gt; caf&eacute; &#8364;5", "R&D <b> café €5"),
        ("cafe\u0301 a\x00b\x07c \ufffd", "café abc"),
        ("tab\tand no-break\u00a0space", "tab\tand no-break\u00a0space"),
        ("\u200d👩\u200d👧 &nbsp;", "\u200d👩\u200d👧"),
    ],
)
def test_cleaned_lines(line, clean):
    assert corpora.clean_line(line) == clean


def test_held_out_is_a_share_by_content():
    documents = [[f"document {i}"] for i in range(5000)]
    held_out = [corpora.is_held_out(d, 0.1) for d in documents]
    assert held_out == [corpora.is_held_out(d, 0.1) for d in documents]
    assert 420 < sum(held_out) < 580


@pytest.mark.parametrize("name", ["wikipedia/20230601.en", "c4/en", "lm1b"])
def test_tfds_text_data_sets(name):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=5):
        documents = list(corpora.documents(CorpusConfig(source="tfds", dataset=name)))
    assert len(documents) == 5
    assert all(isinstance(line, str) and line for document in documents for line in document)


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A real TFDS data set, built to disk from text."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    records = {"text": [f"Größe {i}.\n\nZweiter Absatz." for i in range(7)], "n": np.arange(7)}
    folder = str(tmp_path_factory.mktemp("tfds"))
    tfds.dataset_builders.store_as_tfds_dataset(
        name="my_text",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text(), "n": tfds.features.Scalar(np.int64)}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices(records)},
        data_dir=folder,
    )
    return folder


def test_tfds_data_set_of_ones_own(tfds_folder):
    config = CorpusConfig(source="tfds", dataset="my_text", data_dir=tfds_folder)
    documents = list(corpora.documents(config))
    assert sorted(documents) == [[f"Größe {i}.", "Zweiter Absatz."] for i in range(7)]


def test_many_tfds_files_are_pieces_of_some_each(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds.dataset_builders.AdhocBuilder(
        name="many",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"text": [f"Text {i}." for i in range(60)]})},
        data_dir=str(tmp_path),
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=20))
    config = CorpusConfig(source="tfds", dataset="many", data_dir=str(tmp_path))
    assert len(list(corpora.pieces(config))) == 2
    documents = list(corpora.documents(config))
    assert sorted(documents) == sorted([f"Text {i}."] for i in range(60))
    assert list(corpora.documents(config)) == documents


@pytest.fixture(scope="module")
def tfds_files(tmp_path_factory):
    """A folder of two data sets, a record a file; the third record of `latin` isn't UTF-8."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    for name, third in (("fine", b"Fine 2."), ("latin", b"Caf\xe9.")):
        texts = [b"Fine 0.", b"Fine 1.", third, b"Fine 3."]
        tfds.dataset_builders.AdhocBuilder(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict({"text": tfds.features.Text(), "idx": tfds.features.Scalar(np.int64)}),
            split_datasets={"train": tf.data.Dataset.from_tensor_slices({"text": texts, "idx": np.arange(4)})},
            data_dir=str(folder),
        ).download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=4))
    return folder


def foreign(file):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(b"rubbish")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("fine", lambda file: file.write_bytes(file.read_bytes()[:-3]), "truncated record.*; remove .*fine/1.0.0"),
        ("fine", lambda file: file.write_bytes(file.read_bytes()[:-3] + b"abc"), "corrupted record.*; remove "),
        ("fine", lambda file: file.write_bytes(b""), "0 elements.*; remove "),
        ("fine", foreign, "Feature: .*; remove "),
        ("fine", lambda file: file.unlink(), "No such file.*; remove "),
        ("latin", lambda file: None, r"record 1: not UTF-8 \(byte 3: 0xe9\); make the data set anew"),
    ],
)
def test_bad_tfds_records_name_data_set_and_file(tfds_files, tmp_path, name, damage, message):
    from bert_jax.data.tfds_task import tfds_records

    shutil.copytree(tfds_files, tmp_path / "sets")
    bad = b"Caf\xe9" if name == "latin" else b"Fine 2"
    (file,) = (file for file in (tmp_path / "sets" / name).rglob("*.tfrecord*") if bad in file.read_bytes())
    damage(file)
    readers = [
        lambda: list(corpora.documents(CorpusConfig("tfds", dataset=name, data_dir=str(tmp_path / "sets")))),
        lambda: tfds_records(name, "train", str(tmp_path / "sets")),
    ]
    for read in readers:
        with pytest.raises(InputError, match=f"TFDS data set '{name}', split 'train', {file}.*{message}") as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: "\xff\xfe", lambda text: ""])
def test_a_tfds_folder_that_is_damaged_is_named(tfds_files, tmp_path, file, damage):
    shutil.copytree(tfds_files, tmp_path / "sets")
    path = tmp_path / "sets/fine/1.0.0" / file
    path.write_text(damage(path.read_text()), encoding="latin-1")
    with pytest.raises(InputError, match="TFDS data set 'fine'") as error:
        list(corpora.documents(CorpusConfig("tfds", dataset="fine", data_dir=str(tmp_path / "sets"))))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dataset="no_such_set"), "no_such_set"),
        (dict(text_field="body"), "'body'; .*is one of text"),
        (dict(text_field="n"), "'n'"),
        (dict(split="tests"), "'tests'"),
    ],
)
def test_tfds_errors_name_the_setting(tfds_folder, changes, message):
    config = dict(source="tfds", dataset="my_text", data_dir=tfds_folder) | changes
    with pytest.raises(InputError, match=message) as error:
        list(corpora.documents(CorpusConfig(**config)))
    assert "\n" not in str(error.value)
