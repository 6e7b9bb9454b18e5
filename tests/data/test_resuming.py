"""Preparing that was stopped goes on behind its finished shards, wherever their text lies and whatever follows it."""

import dataclasses
import gzip
import io
import itertools
import json
import os
import random
import re
import shutil

import numpy as np
import pytest
from conftest import small_config, write_corpus
from test_prepare import files_of

from bert_jax.config import InputError, TokenizerConfig
from bert_jax.data import corpora, leftovers, resuming
from bert_jax.data import prepare as preparing
from bert_jax.data.building import work
from bert_jax.data.prepare import prepare

LAST = b"A last line."
STOPPED_AFTER = 6  # shards


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(corpora, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(preparing, "CHUNKS_A_SHARD", (2, 2))


class Here:
    """An engine that works in this process and keeps the numbers of the shards of the training split that it made."""

    def __init__(self):
        self.made: set[int] = set()

    def __call__(self, writer, calls):
        for chunk, number, repeated, job in calls:
            shard = number // calls.chunks_a_shard
            if not writer.is_finished(shard):
                writer.add(shard, chunk.source, work(chunk, number, repeated, job, calls.tokenizer))
                self.made |= {shard} if job.split == "train" else set()
        writer.close()


def config_of(folder, pattern="*.txt", deduplicate=False, trained=False, **changes):
    config = small_config(folder / pattern)
    tokenizer = TokenizerConfig(vocab_size=150, training_characters=2000)
    if not trained:
        tokenizer = TokenizerConfig(path=str(folder.parent / "vocab.txt"))
    corpus = dataclasses.replace(config.corpus, deduplicate=deduplicate)
    return dataclasses.replace(config, corpus=corpus, tokenizer=tokenizer, **changes)


class Stopped(Here):
    """Ends as Ctrl-C does, behind some shards."""

    def __call__(self, writer, calls):
        chunks = list(itertools.islice(calls.pieces(), 2 * STOPPED_AFTER))
        super().__call__(writer, dataclasses.replace(calls, pieces=lambda: chunks))
        raise KeyboardInterrupt


@pytest.fixture
def text(tmp_path):
    """A folder of two files."""
    folder = tmp_path / "text"
    folder.mkdir()
    write_corpus(folder / "a.txt", documents=20)
    late = write_corpus(folder / "b.txt", documents=40, seed=1)
    late.write_bytes(late.read_bytes() + b"\n" + LAST + b"\n")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "."]))
    return folder


def stop(config, output):
    with pytest.raises(KeyboardInterrupt):
        prepare(config, output, engine=Stopped())
    assert len(list(output.with_name("out.partial").glob("progress/train-*.npz"))) == STOPPED_AFTER


def gone_on(config, output) -> set[int]:
    """Prepares to the end, to what is made without a stop; returns the training shards that were made."""
    engine = Here()
    made = prepare(config, output, engine=engine).folder
    assert files_of(made) == files_of(prepare(config, output.with_name("afresh"), engine=Here()).folder)
    return engine.made


def mend(folder, mended=b"Another line"):
    late = folder / "b.txt"
    late.write_bytes(late.read_bytes().replace(LAST, mended))


def mend_and_grow(folder):
    mend(folder, "A last line, of a café. ".encode() * 50)


def mend_and_move(folder):
    mend(folder)
    shutil.copytree(folder, folder.parent / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    return folder.parent / "elsewhere"


def touch(folder):
    for file in folder.iterdir():
        os.utime(file, (1, 1))


def add_a_file(folder):
    write_corpus(folder / "c.txt", documents=5, seed=2)


@pytest.mark.parametrize("change", [mend, mend_and_grow, mend_and_move, touch, add_a_file])
@pytest.mark.parametrize("how", [{}, {"deduplicate": True}, {"trained": True}], ids=str)
def test_what_was_finished_stays_where_its_text_is_the_same(text, tmp_path, change, how):
    stop(config_of(text, **how), tmp_path / "out")
    folder = change(text) or text
    again = gone_on(config_of(folder, **how), tmp_path / "out")
    # A vocabulary is trained on a sample of all text, and more text has another.
    anew = "trained" in how and change in (mend_and_grow, add_a_file)
    assert min(again) == (0 if anew else STOPPED_AFTER)


def test_of_shards_beyond_the_end_nothing_is_left(text, tmp_path):
    stop(config_of(text), tmp_path / "out")
    (text / "b.txt").write_text("The end.")
    assert min(gone_on(config_of(text), tmp_path / "out")) < STOPPED_AFTER


def test_a_bad_byte_loses_no_shard(text, tmp_path):
    mend(text, b"A caf\xe9.")
    with pytest.raises(
        InputError, match=r"b\.txt, line \d+: not UTF-8.*; \d+ finished shards.*the same command goes on"
    ):
        prepare(config_of(text), tmp_path / "out", engine=Here())
    late = text / "b.txt"
    late.write_bytes(late.read_bytes().replace(b"\xe9", b"e"))
    assert min(gone_on(config_of(text), tmp_path / "out")) > STOPPED_AFTER


def test_a_shard_of_changed_text_alone_is_made_again(text, tmp_path, capsys):
    stop(config_of(text), tmp_path / "out")
    early = text / "a.txt"
    early.write_bytes(early.read_bytes().replace(b"Document 7 of", b"Document X of"))
    again = gone_on(config_of(text), tmp_path / "out")
    assert len([shard for shard in again if shard < STOPPED_AFTER]) == 1
    assert "the text has changed: 1 of 6 finished shards are made again" in capsys.readouterr().out


def test_files_that_are_as_they_were_are_not_read_again(text, tmp_path, monkeypatch):
    stop(config_of(text), tmp_path / "out")
    mend(text)
    read, text_of = [], resuming.text_of
    monkeypatch.setattr(resuming, "text_of", lambda chunk, repeated: read.append(chunk) or text_of(chunk, repeated))
    prepare(config_of(text), tmp_path / "out", engine=Here())
    assert read and all(any(part.file.endswith("b.txt") for part in chunk.parts) for chunk in read)


def test_a_vocabulary_of_other_text_makes_all_anew(text, tmp_path, capsys):
    stop(config_of(text, trained=True), tmp_path / "out")
    early = text / "a.txt"
    early.write_bytes(b"Quizzical jackdaws vex zephyrs. " * 20 + early.read_bytes())
    assert min(gone_on(config_of(text, trained=True), tmp_path / "out")) == 0
    assert "its vocabulary is another" in capsys.readouterr().out


def test_text_of_a_compressed_file_is_known_too(text, tmp_path):
    def compress():
        for file in text.glob("*.txt"):
            file.with_suffix(".gz").write_bytes(gzip.compress(file.read_bytes()))

    compress()
    config = config_of(text, "*.gz")
    (text / "b.gz").write_bytes(gzip.compress((text / "b.txt").read_bytes() + b"A caf\xe9.\n"))
    with pytest.raises(InputError, match=r"b\.gz, line \d+: not UTF-8.*the same command goes on"):
        prepare(config, tmp_path / "out", engine=Here())
    finished = len(list(tmp_path.glob("out.partial/progress/train-*.npz")))
    compress()
    assert finished > 2 and min(gone_on(config, tmp_path / "out")) == finished


def test_the_wrong_files_lose_nothing(text, tmp_path):
    stop(config_of(text), tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    write_corpus(other / "a.txt", documents=50, seed=9)
    with pytest.raises(
        InputError, match="corpus.files was .*text/.* is .*other/.* now, and is other text; give it back"
    ):
        prepare(config_of(other), tmp_path / "out", engine=Here())
    assert min(gone_on(config_of(text), tmp_path / "out")) == STOPPED_AFTER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(seed=7), r"out\.partial: seed was 0 in the run that was stopped there, is 7 now"),
        (dict(trained=True), "tokenizer was 'the one of fingerprint"),
        (dict(deduplicate=True), "corpus.deduplicate was False"),
    ],
    ids=str,
)
def test_another_setting_is_refused(text, tmp_path, change, message):
    stop(config_of(text), tmp_path / "out")
    with pytest.raises(InputError, match=message):
        prepare(config_of(text, **change), tmp_path / "out", engine=Here())


def test_what_another_version_left_is_refused(text, tmp_path, monkeypatch):
    stop(config_of(text), tmp_path / "out")
    monkeypatch.setattr(resuming.sentences, "VERSION", resuming.sentences.VERSION + 1)
    with pytest.raises(InputError, match="begun by another version of bert_jax"):
        prepare(config_of(text), tmp_path / "out", engine=Here())


# ---- Damage ---------------------------------------------------------------------------------------------------------


def flip(file, rng):
    """One bit."""
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def cut(file, rng):
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])


def lose(file, _):
    file.unlink()


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a run leaves that was stopped, with a file of each kind that there is, and what it would have made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "CHUNK_BYTES", 1000)
        patch.setattr(preparing, "CHUNKS_A_SHARD", (2, 2))
        folder = tmp_path_factory.mktemp("left")
        (folder / "text").mkdir()
        write_corpus(folder / "text/a.txt", documents=40)
        config = config_of(folder / "text", deduplicate=True, trained=True)
        whole = files_of(prepare(config, folder / "whole", engine=Here()).folder)
        stop(config, folder / "out")
        (folder / "out.partial/progress/train-00009.npz.x").write_text("what nobody knows")
        return config, folder / "out.partial", whole


KINDS = {
    "job": "job.json",
    "counts": "progress/train-*.npz",
    "held out": "progress/train-*.held_out.json",
    "records": "32/train/*.records",
    "tokenizer": "progress/tokenizer.json",
    "lines": "progress/lines.json",
    "repeated": "progress/lines.repeated",
}


@pytest.mark.parametrize("times", [1, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("damage", [flip, cut, lose])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_is_made_again_or_named(left, kind, damage, times, tmp_path, capsys):
    config, partial, whole = left
    for seed in range(times):
        rng, out = random.Random(f"{kind} {damage.__name__} {seed}"), tmp_path / f"{seed}"
        copied = shutil.copytree(partial, tmp_path / f"{seed}.partial")
        file = rng.choice(sorted(copied.glob(KINDS[kind])))
        damage(file, rng)
        engine = Here()
        try:
            made = prepare(config, out, engine=engine).folder
        except InputError as error:
            assert kind == "job" and re.search(r"job\.json: damaged.*remove .*partial to begin anew", str(error))
            made = prepare(config, out, overwrite=True, engine=engine).folder
        assert files_of(made) == whole
        again = {number for number in engine.made if number < STOPPED_AFTER}
        said = capsys.readouterr().err
        if kind in ("counts", "held out", "records"):  # Of finished shards, the damaged one alone.
            assert len(again) <= 1 and (kind == "counts" and damage == lose or "1 of 6 finished shards" in said)
        elif kind != "job":
            assert not again and (damage == lose or "made again" in said)


DEEP = b"[" * 100_000


def counts_with(array=None, **about):
    """A file of counts that a stranger wrote, by the one that is there."""

    def changed(content: bytes) -> bytes:
        with np.load(io.BytesIO(content)) as read:
            arrays = dict(read)
        arrays["about"] = np.array(json.dumps({**json.loads(str(arrays["about"])), **about}))
        if array:
            arrays[array] = np.array([{}]) if array != "about" else np.array(3)
        np.savez(stream := io.BytesIO(), **arrays)
        return stream.getvalue()

    return changed


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        *(("job", content) for content in (DEEP, b"[]", b"3", b'{"text": 3}', b'{"done": 1}', b"\xff", b"")),
        *(("held out", content) for content in (DEEP, b"{}", b"[[3]]")),
        *(("lines", content) for content in (DEEP, b"[]", b'{"lines": [1]}', b'{"lines": "x", "marks": 1}')),
        *(("tokenizer", content) for content in (DEEP, b"[]", b"{}")),
        ("counts", b"no archive"),
        *(("counts", counts_with(name)) for name in ("about", "unigrams", "zeros", "hashes", "counts")),
        *(("counts", counts_with(entries=entries)) for entries in ({"x": {}}, {"77": {}}, {"32": {}}, None)),
        *(("counts", counts_with(sources=sources)) for sources in ({"99": {}}, {"0": {"x": 1}}, [])),
        *(("counts", counts_with(made_of=made_of)) for made_of in ([3], [{}], None)),
    ],
    ids=itertools.count(),
)
def test_leftovers_of_a_stranger_with_the_right_checksum(left, kind, content, tmp_path, capsys):
    config, partial, whole = left
    copied, out, engine = shutil.copytree(partial, tmp_path / "out.partial"), tmp_path / "out", Here()
    file = min(copied.glob(KINDS[kind]))
    leftovers.write(file, content(leftovers.read(file)) if callable(content) else content)
    if kind == "job":
        with pytest.raises(InputError, match=r"job\.json: damaged .*; remove .*partial to begin anew"):
            prepare(config, out, engine=engine)
    assert files_of(prepare(config, out, overwrite=kind == "job", engine=engine).folder) == whole
    assert kind == "job" or "damaged" in capsys.readouterr().err


def test_what_cannot_be_made_again_is_named(left, tmp_path):
    config, partial, _ = left
    for name, content, message in (
        ("progress/tokenizer.json", b'{"kind": "x"}', r"tokenizer\.json: no tokenizer .*; remove .* to begin anew"),
        ("progress/lines.json", None, r"lines\.repeated: damaged \(of other text\); remove it"),
    ):
        copied = shutil.copytree(partial, tmp_path / "out.partial", dirs_exist_ok=True)
        file = copied / name
        if content is None:
            counts = json.loads(leftovers.read(file))
            content = json.dumps(counts | {"lines": counts["lines"][:1]}).encode()
        leftovers.write(file, content)
        with pytest.raises(InputError, match=message):
            prepare(config, tmp_path / "out", engine=Here())


def test_stopped_behind_the_end_it_goes_on_there_unless_it_is_damaged(left, tmp_path, monkeypatch, capsys):
    config, partial, whole = left

    def stopped(*_):
        raise KeyboardInterrupt

    for module, name in ((preparing.folders, "put_in_place"), (preparing.storage, "sync")):
        shutil.copytree(partial, tmp_path / "out.partial")
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stopped)
            with pytest.raises(KeyboardInterrupt):
                prepare(config, tmp_path / "out", engine=Here())
        if name == "put_in_place":  # Only the name is missing.
            engine = Here()
            assert files_of(prepare(config, tmp_path / "out", engine=engine).folder) == whole and not engine.made
            shutil.rmtree(tmp_path / "out")
    for damage in (None, "manifest.json", "tokenizer.json", "32/train/00000.records"):
        shutil.copytree(tmp_path / "out.partial", tmp_path / "again.partial")
        if damage:
            flip(tmp_path / "again.partial" / damage, random.Random(0))
        engine = Here()
        assert files_of(prepare(config, tmp_path / "again", engine=engine).folder) == whole
        assert bool(engine.made) == (damage == "32/train/00000.records")
        shutil.rmtree(tmp_path / "again")


def test_a_vocabulary_that_is_lost_and_a_text_that_changed(left, tmp_path, capsys):
    """Shards of another vocabulary aren't kept, though nothing says what theirs was."""
    config, partial, _ = left
    folder = shutil.copytree(partial.parent / "text", tmp_path / "text")
    shutil.copytree(partial, tmp_path / "out.partial")
    (tmp_path / "out.partial/progress/tokenizer.json").unlink()
    text = folder / "a.txt"
    text.write_bytes(text.read_bytes() + b"\n\nQuizzical jackdaws vex zephyrs.\n" * 30)
    files = dataclasses.replace(config.corpus, files=(str(folder / "*.txt"),))
    assert min(gone_on(dataclasses.replace(config, corpus=files), tmp_path / "out")) == 0
