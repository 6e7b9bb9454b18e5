"""Documents to examples on disk: sentence pairs, whole or nothing, the same for any number of workers."""

import dataclasses
import filecmp
import functools
import gzip
import json
import random
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import small_config, write_corpus

from bert_jax.config import ExamplesConfig, InputError, TokenizerConfig
from bert_jax.data import corpora, report, resuming
from bert_jax.data import examples as building
from bert_jax.data import prepare as preparing
from bert_jax.data.dry_run import dry_run
from bert_jax.data.duplicates import DuplicateLines, find_repeated
from bert_jax.data.prepare import prepare
from bert_jax.data.records import Examples


def numbered_documents(rng: random.Random) -> list[list[list[int]]]:
    """Every token is unique, so a segment tells where it comes from."""
    token = iter(range(1, 10**6))
    return [[[next(token) for _ in range(rng.randint(1, 20))] for _ in range(rng.randint(1, 30))] for _ in range(40)]


@pytest.fixture(scope="module")
def pairs():
    rng = random.Random(1)
    documents = numbered_documents(rng)
    config = ExamplesConfig(short_sequence_probability=0.1)
    return documents, [list(building.build(documents, 64, config, rng)) for _ in range(20)]


def test_pairs_fit_and_are_contiguous(pairs):
    _, runs = pairs
    for label, [(a, b)] in (example for run in runs for example in run):
        assert len(a) > 0 and len(b) > 0 and len(a) + len(b) <= 61
        assert a == list(range(a[0], a[0] + len(a))) and b == list(range(b[0], b[0] + len(b)))
        if label == 0 and len(a) + len(b) < 61:
            assert b[0] == a[-1] + 1


def test_random_segments_come_from_other_documents_about_half_of_the_time(pairs):
    documents, runs = pairs
    home = {token: i for i, document in enumerate(documents) for sentence in document for token in sentence}
    labelled = [(label, home[a[0]] == home[b[0]]) for run in runs for label, [(a, b)] in run]
    assert all(same for label, same in labelled if label == 0)
    assert not any(same for label, same in labelled if label == 1)
    share = np.mean([label for label, _ in labelled])
    assert 0.45 < share < 0.75  # Above a half: a chunk of one sentence always gets a random one.


def test_every_sentence_begins_in_some_segment(pairs):
    documents, runs = pairs
    starts = {sentence[0] for document in documents for sentence in document}
    used = {token for run in runs for _, [(a, b)] in run for token in (*a, *b)}
    assert len(starts - used) < 0.1 * len(starts)  # Truncation drops a few.


def test_cut_tokens_are_shared_between_front_and_back():
    rng = random.Random(0)
    a, b = list(range(100)), list(range(200, 240))
    cut = [building._truncate(a, b, 61, rng) for _ in range(2000)]
    assert {(len(x), len(y)) for x, y in cut} == {(31, 30)}
    assert abs(np.mean([x[0] for x, _ in cut]) - 69 / 2) < 1
    assert abs(np.mean([y[0] - 200 for _, y in cut]) - 10 / 2) < 0.3


def test_full_sentences_are_whole_and_of_one_document():
    document = [[1, 2, 3], [4, 5], [6], list(range(10, 22)), [30, 31], [40, 41, 42, 43]]
    made = list(building.build([document, [[50]]], 7, ExamplesConfig("full_sentences"), random.Random(0)))
    texts = [[1, 2, 3, 4, 5], [6], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19], [20, 21, 30, 31], [40, 41, 42, 43], [50]]
    assert made == [(0, [(text,)]) for text in texts]


def test_packed_rows_hold_the_same_texts_once_and_are_full():
    documents = numbered_documents(random.Random(2))
    alone = [text for _, [(text,)] in building.build(documents, 64, ExamplesConfig("full_sentences"), random.Random(0))]
    packed = list(building.build(documents, 64, ExamplesConfig("packed"), random.Random(0)))
    texts = [text for _, row in packed for (text,) in row]
    assert sorted(texts) == sorted(alone)
    assert [token for text in sorted(texts) for token in text] == list(range(1, max(texts)[-1] + 1))
    used = [sum(len(text) + 2 for (text,) in row) for _, row in packed]
    assert max(used) <= 64 and len(packed) < len(alone)
    # No row could take the texts of the two emptiest others, as the best fit has it.
    assert sum(sorted(used)[:2]) > 64
    assert packed == list(building.build(documents, 64, ExamplesConfig("packed"), random.Random(0)))


def test_record_layout():
    special = {"[CLS]": 101, "[SEP]": 102, "[PAD]": 7}
    record = np.frombuffer(building.to_record((1, [([5, 6], [8])]), 8, special, "uint16"), "uint16")
    assert record.tolist() == [1, 4, 6, 101, 5, 6, 102, 8, 102, 7, 7]
    record = np.frombuffer(building.to_record((0, [([5, 6],)]), 6, special, "int32"), "int32")
    assert record.tolist() == [0, 4, 4, 101, 5, 6, 102, 7, 7]
    record = np.frombuffer(building.to_record((0, [([5, 6],), ([8],)]), 8, special, "int32"), "int32")
    assert record.tolist() == [0, 7, 7, 101, 5, 6, 102, 101, 8, 102, 7]


def test_manifest_counts_what_is_there(examples, config):
    manifest = examples.manifest
    train, held_out = (manifest["splits"][split] for split in ("train", "held_out"))
    assert train["documents"] + held_out["documents"] == 60
    assert 1 <= held_out["documents"] <= 15
    assert manifest["unknown_rate"] == 0
    reader = examples.split("train", 32)
    records = reader.read(np.arange(len(reader)))
    assert len(records) == sum(shard["examples"] for shard in manifest["lengths"]["32"]["train"])
    assert set(records[:, 0]) == {0, 1}
    assert (records[:, 3] == examples.tokenizer.special_ids["[CLS]"]).all()
    assert np.array_equal(reader.read(np.array([5, 0, 5])), records[[5, 0, 5]])
    assert sum(manifest["unigram_counts"]) == train["tokens"]
    assert (
        report.fill("32", manifest["lengths"]["32"]["train"])
        == (records[:, 3:] != examples.tokenizer.special_ids["[PAD]"]).mean()
    )


def test_a_changed_count_in_the_manifest_is_noticed(examples, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((examples.folder / "tokenizer.json").read_bytes())
    manifest = json.loads((examples.folder / "manifest.json").read_text())
    manifest["unigram_counts"][-1] += 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: damaged \(its checksum isn't that of its values\); prepare"):
        Examples(tmp_path)
    del manifest["checksum"]  # Earlier versions wrote none.
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert Examples(tmp_path).manifest["unigram_counts"] == manifest["unigram_counts"]


def test_the_same_bytes_for_any_number_of_workers(config, tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(preparing, "CHUNKS_A_SHARD", (2, 2))
    made = []
    for workers in (1, 3):
        run = dataclasses.replace(config.run, workers=workers)
        made.append(prepare(dataclasses.replace(config, run=run), tmp_path / str(workers)).folder)
    files = sorted(p.relative_to(made[0]) for p in made[0].rglob("*.records"))
    assert len(files) > 4
    assert all(filecmp.cmp(made[0] / file, made[1] / file, shallow=False) for file in files)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in made]
    assert manifests[0]["lengths"] == manifests[1]["lengths"]
    examples = Examples(made[0])
    examples.check_files([32])
    reader = examples.split("train", 32)
    shuffled = np.random.default_rng(0).permutation(len(reader))
    assert np.array_equal(reader.read(shuffled), reader.read(np.arange(len(reader)))[shuffled])


def test_duplicate_lines_are_counted_and_warned_about(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "a.txt")
    corpus.write_text(corpus.read_text() * 2)
    examples = prepare(small_config(corpus), tmp_path / "examples")
    assert 0.45 < examples.manifest["duplicate_lines"] < 0.6
    assert "warning: many lines occur more than once" in capsys.readouterr().out


def test_share_of_duplicates_stays_right_when_sampled():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 20_000).astype(np.uint64)
    counted = DuplicateLines(most=1000)
    for block in np.split(np.concatenate([hashes, hashes[:10_000]]), 30):
        counted.add(block)
    assert len(counted._counts) <= 1000
    assert abs(counted.share() - 1 / 3) < 0.03


@pytest.mark.parametrize("at_once", [16, 100, 10**6])
def test_repeated_lines_are_found_in_bounded_memory(tmp_path, at_once):
    hashes = np.random.default_rng(0).integers(0, 2**64 - 1, 300, np.uint64, endpoint=True)
    hashes = np.concatenate([hashes, hashes[::3], hashes[:50], np.array([0, 2**64 - 1, 0], np.uint64)])
    (tmp_path / "hashes").write_bytes(hashes.tobytes())
    found = find_repeated(tmp_path / "hashes", tmp_path / "marks", at_once)
    seen: set[int] = set()
    expected = [value in seen or bool(seen.add(value)) for value in hashes.tolist()]
    assert np.fromfile(tmp_path / "marks", np.uint8).astype(bool).tolist() == expected
    assert found == sum(expected) == 151


def test_repeated_lines_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corpora, "CHUNK_BYTES", 2000)
    corpus = write_corpus(tmp_path / "a.txt")
    lines = [line for line in corpus.read_text().split("\n") if line]
    corpus.write_text(corpus.read_text() + "\n" + corpus.read_text())
    config = small_config(corpus)
    config = dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, deduplicate=True))
    manifest = prepare(config, tmp_path / "examples").manifest
    assert sum(split["lines"] for split in manifest["splits"].values()) == len(set(lines))
    assert manifest["splits"]["train"]["removed_lines"] == 2 * len(lines) - len(set(lines))
    assert manifest["duplicate_lines"] == 0
    assert "lines that occurred before were left out" in capsys.readouterr().out


def test_a_vocabulary_is_trained_on_a_share_of_each_source():
    sizes = {"en": 9_000_000, "sw": 1_000_000}
    even = preparing.sampling_rates(sizes, TokenizerConfig(training_characters=1_000_000))
    assert even == pytest.approx({"en": 0.1, "sw": 0.1})
    rates = preparing.sampling_rates(sizes, TokenizerConfig(training_characters=1_000_000, temperature=2))
    assert rates == pytest.approx({"en": 0.75 / 9, "sw": 0.25})
    all_of_it = preparing.sampling_rates(sizes, TokenizerConfig(temperature=2))
    assert all_of_it == pytest.approx({"en": 7.5 / 9, "sw": 2.5})


def test_a_dry_run_says_what_comes(config, examples, capsys):
    found = dry_run(config)
    totals = examples.manifest["splits"]["train"], examples.manifest["splits"]["held_out"]
    for name in ("documents", "sentences"):
        assert found[name] == pytest.approx(sum(split[name] for split in totals))
    made = sum(s["examples"] for split in examples.manifest["lengths"]["32"].values() for s in split)
    assert found["examples_32"] == pytest.approx(made, rel=0.05)
    assert "examples" in capsys.readouterr().out


def long_corpus(folder):
    """Two files of a few chunks each, one of them compressed: some shards."""
    write_corpus(folder / "a.txt", documents=9_000)
    text = write_corpus(folder / "b.txt", documents=9_000, seed=1).read_bytes()
    (folder / "b.txt").unlink()
    (folder / "b.gz").write_bytes(gzip.compress(text, 1))
    return ["--corpus.source", "text", "--corpus.files", str(folder / "a.txt"), str(folder / "b.gz")]


def prepare_command(output, *flags) -> list[str]:
    command = [sys.executable, "-m", "bert_jax", "prepare", "--config", "pretrain_tiny", "--output", str(output)]
    return [*command, "--tokenizer.vocab-size", "300", *flags]


def files_of(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_killed_anywhere_and_started_again_every_byte_is_the_same(tmp_path, kills):
    flags = long_corpus(tmp_path)
    start = time.time()
    subprocess.run(prepare_command(tmp_path / "whole", *flags), check=True, capture_output=True)
    seconds = time.time() - start
    expected, out, killed = files_of(tmp_path / "whole"), tmp_path / "out", 0
    assert len(expected) > 4
    while killed < kills:
        if out.exists():  # Done, or killed when it was.
            assert files_of(out) == expected
            shutil.rmtree(out)
        workers = ["--run.workers", str(random.randint(1, 3))]
        process = subprocess.Popen(
            prepare_command(out, *flags, *workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert process.wait(random.uniform(0.2, 0.8) * seconds) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    if not out.exists():
        subprocess.run(prepare_command(out, *flags), check=True, capture_output=True)
    assert files_of(out) == expected


def test_what_was_finished_remains_where_the_disk_is_full(tmp_path):
    flags, disk = long_corpus(tmp_path), tmp_path / "disk"
    disk.mkdir()
    subprocess.run(prepare_command(tmp_path / "whole", *flags), check=True, capture_output=True)
    size = sum(map(len, files_of(tmp_path / "whole").values()))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 4}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    try:
        done = subprocess.run(prepare_command(disk / "out", *flags), capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        last = done.stderr.strip().split("\n")[-1]
        assert re.search(
            r"No space left on device; make room; \d finished shards are kept in .*/disk/out.partial", last
        )
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        subprocess.run(prepare_command(disk / "out", *flags), check=True, capture_output=True)
        assert files_of(disk / "out") == files_of(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_another_run_left_is_not_gone_on_with(config, tmp_path):
    partial = tmp_path / "out.partial"
    (partial / "progress").mkdir(parents=True)
    job = resuming.job_of(config)
    resuming.write_job(partial, job | {"seed": 7})
    with pytest.raises(InputError, match=r"out\.partial: seed was 7 in the run that was stopped there, is 0 now"):
        prepare(config, tmp_path / "out")


def test_beam_makes_the_same_bytes(config, tmp_path, monkeypatch):
    from bert_jax.data.beam import BeamEngine

    monkeypatch.setattr(corpora, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(preparing, "CHUNKS_A_SHARD", (2, 2))
    text = write_corpus(tmp_path / "b.txt", seed=1).read_bytes()
    (tmp_path / "b.gz").write_bytes(gzip.compress(text + b"\n\n" + text[:500]))
    files = (*config.corpus.files, str(tmp_path / "b.gz"))
    config = dataclasses.replace(
        config, corpus=dataclasses.replace(config.corpus, files=files, deduplicate=True, held_out=0.2)
    )
    ours = prepare(config, tmp_path / "ours").folder
    theirs = prepare(config, tmp_path / "theirs", engine=BeamEngine(["--runner=DirectRunner"])).folder
    assert files_of(ours) == files_of(theirs)
    assert len(files_of(ours)) > 6


def test_nothing_is_left_where_the_corpus_is_bad(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n\n")
    (tmp_path / "latin.txt").write_bytes(b"fine\n" * 50 + b"na\xefve\n")
    before = sorted(tmp_path.iterdir())
    for name in ("empty.txt", "latin.txt", "none.txt"):
        for path in (None, "vocab.txt"):
            tokenizer = TokenizerConfig(vocab_size=20, path=path and str(tmp_path / path))
            with pytest.raises(InputError):
                prepare(small_config(tmp_path / name, tokenizer=tokenizer), tmp_path / "a/b/examples")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_is_not_overwritten_unless_asked(examples, config):
    with pytest.raises(InputError, match="--overwrite"):
        prepare(config, examples.folder)
    fingerprint = examples.fingerprint
    assert prepare(config, examples.folder, overwrite=True).fingerprint == fingerprint


def damaged(shard):
    shard.write_bytes(shard.read_bytes()[:-10] + b"0123456789")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-100]), "bytes, the manifest says"),
        (damaged, "damaged"),
        (lambda shard: shard.unlink(), "missing"),
    ],
)
def test_damaged_shards_are_named(config, tmp_path, damage, message):
    folder = prepare(config, tmp_path / "examples").folder
    shard = folder / "32/train/00000.records"
    damage(shard)
    with pytest.raises(InputError, match=message) as error:
        Examples(folder).check_files([32])
    assert str(shard) in str(error.value)


def test_a_foreign_tokenizer_is_noticed(config, tmp_path):
    folder = prepare(config, tmp_path / "examples").folder
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lowercase": False}))
    with pytest.raises(InputError, match="not the tokenizer that the examples were made with"):
        Examples(folder)


def test_workers_end_with_a_parent_that_is_killed(config, tmp_path):
    """SIGKILL leaves no process behind; the next start clears the folder."""
    corpus = write_corpus(tmp_path / "long.txt", documents=20_000)
    command = [
        sys.executable,
        "-m",
        "bert_jax",
        "prepare",
        "--config",
        "pretrain_tiny",
        "--output",
        str(tmp_path / "out"),
    ]
    command += ["--corpus.source", "text", "--corpus.files", str(corpus), "--tokenizer.vocab-size", "300"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not (workers := psutil.Process(process.pid).children()) and time.time() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert workers and not alive


def test_preparing_does_not_count_by_its_progress_bar(config, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "tqdm", functools.partial(preparing.tqdm, disable=True))
    assert files_of(prepare(config, tmp_path / "out").folder) == files_of(examples.folder)
