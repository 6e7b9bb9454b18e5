"""Measures `prepare` and the input pipeline against another library, in alternating rounds of one run."""

import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from bert_jax.config import ExamplesConfig, InputError, MaskingConfig, Phase, PretrainConfig
from bert_jax.config.files import from_dict
from bert_jax.data.examples import HEADER, continues_bit
from bert_jax.data.records import Examples

# transformers' fast tokenizer on the same lines, in its usual call, and nothing else.
PEER = """
import sys
from transformers import BertTokenizer
lines = [line for line in open(sys.argv[1], encoding="utf-8").read().split("\\n") if line]
BertTokenizer(sys.argv[2])(lines, return_attention_mask=False, return_token_type_ids=False)
"""

# transformers' collator in torch's loader, called in the fastest way: rows of one length as bare tensors, so that it
# neither pads nor makes attention masks and segments; and in the usual way, with dictionaries.
PEER_PIPELINE = """
import sys, time, numpy, torch
from torch.utils.data import DataLoader, Dataset
from transformers import BertTokenizer, DataCollatorForLanguageModeling

class Rows(Dataset):
    def __init__(self, path):
        self.rows = numpy.load(path, mmap_mode="r")
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, index):
        row = torch.from_numpy(self.rows[index].astype(numpy.int64))
        return {"input_ids": row} if sys.argv[5] == "dictionaries" else row

def endless(loader):
    while True:
        yield from loader

rows, vocab, batch, seconds = Rows(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
collator = DataCollatorForLanguageModeling(BertTokenizer(vocab))
workers = dict(num_workers=2, persistent_workers=True)
batches = endless(DataLoader(rows, batch, shuffle=True, drop_last=True, collate_fn=collator, **workers))
for _ in range(8):
    next(batches)
start, count = time.perf_counter(), 0
while time.perf_counter() < start + seconds:
    next(batches)
    count += 1
print(count * batch * rows.rows.shape[1] / (time.perf_counter() - start))
"""
BATCH = 256
# The time to the first batch is measured with this many examples, at the first step and at this late one.
MANY_EXAMPLES, LATE_STEP = 10_000_000, 1_000_000


def bench_prepare(text: Path, vocab: Path, rounds: int) -> None:
    """Measures `bert-jax prepare` of a text file against the fast tokenizer alone, and its memory for a tenth of it."""
    _check_peer()
    for file in (text, vocab):
        if not file.is_file():
            raise InputError(f"{file}: no such file")
    with tempfile.TemporaryDirectory() as folder:
        tenth = Path(folder) / "tenth.txt"
        content = text.read_text(encoding="utf-8")
        tenth.write_text(content[: len(content) // 10], encoding="utf-8")
        size = text.stat().st_size
        # Starting Python and importing are part of both times.
        peer = [sys.executable, "-c", PEER, str(text), str(vocab)]
        ours, theirs = [], []
        _measure(_prepare(text, vocab, folder))  # Warms the file cache.
        for number in range(rounds):
            ours.append(_measure(_prepare(text, vocab, folder)))
            theirs.append(_measure(peer))
            times = f"prepare {ours[-1][0]:.1f} s, the tokenizer alone {theirs[-1][0]:.1f} s"
            print(f"round {number + 1}: {times}", flush=True)
        small = _measure(_prepare(tenth, vocab, folder))
    ratios = [a[0] / b[0] for a, b in zip(ours, theirs, strict=True)]
    for name, runs in (("bert-jax prepare", ours), ("the tokenizer alone", theirs)):
        seconds, memory = statistics.median(r[0] for r in runs), max(r[1] for r in runs)
        print(f"{name}: {seconds:.1f} s, {size / seconds / 1e6:.2f} MB/s, peak memory {memory / 1e6:.0f} MB")
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    print(f"ratio of times, median of {rounds} rounds: {statistics.median(ratios):.2f} ({spread})")
    largest = max(r[1] for r in ours)
    print(f"peak memory, all to a tenth: {largest / 1e6:.0f} / {small[1] / 1e6:.0f} MB = {largest / small[1]:.2f}")


def _prepare(text: Path, vocab: Path, folder: str) -> list[str]:
    command = [sys.executable, "-m", "bert_jax", "prepare", "--config", "pretrain_base", "--overwrite"]
    command += ["--output", str(Path(folder) / "examples"), "--corpus.files", str(text), "--tokenizer.path", str(vocab)]
    # A single sequence length, as in one phase.
    return [*command, "--phases.1.sequence-length", "128", "--phases.1.max-predictions", "20"]


def _measure(command: list[str]) -> tuple[float, int]:
    """The command's seconds, and the peak memory of it and its children together, in bytes."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    with tempfile.TemporaryFile("w+") as errors:
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _memory(tree))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{' '.join(command[:4])}: failed with {last}")
    return seconds, peak


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for p in (process, *process.children(recursive=True)):
            total += p.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # The process ended meanwhile.
    return total


def _check_peer() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise InputError("the peer isn't here: pip install -e '.[test]'")


def bench_pipeline(folder: str, rounds: int, seconds: float) -> None:
    """For each length: our batches against the peer's, the time of our stages, and the time to the first batch."""
    _check_peer()
    examples = Examples(folder)
    if examples.tokenizer.kind != "wordpiece":
        raise InputError(f"{folder}: the peer needs examples of a WordPiece vocabulary")
    for length in map(int, examples.manifest["lengths"]):
        if (count := len(examples.split("train", length))) < BATCH:
            raise InputError(
                f"{folder}: {count} examples of length {length}, fewer than a batch of {BATCH}; bring more"
            )
        _beside_peer(examples, length, rounds, seconds)
        _stages(examples, length, seconds)
        _first_batches(examples, length, rounds)


def _config(examples: Examples, length: int, **masking) -> PretrainConfig:
    """A config for batches as in pretraining, without end."""
    phase = Phase(length, BATCH, 2 * LATE_STEP, max_predictions=math.ceil(0.15 * length))
    made_by = from_dict(ExamplesConfig, examples.manifest["config"]["examples"])
    return PretrainConfig(examples=made_by, masking=MaskingConfig(**masking), phases=(phase,))


def _beside_peer(examples: Examples, length: int, rounds: int, seconds: float) -> None:
    from bert_jax.data import pipeline

    ours: list[float] = []
    theirs: dict[str, list[float]] = {"dictionaries": [], "bare tensors": []}
    with tempfile.TemporaryDirectory() as folder:
        rows, vocab = Path(folder) / "rows.npy", Path(folder) / "vocab.txt"
        np.save(rows, _ids(examples, length))
        vocab.write_text("\n".join(examples.tokenizer.pieces()) + "\n", encoding="utf-8")
        peer = [sys.executable, "-W", "ignore", "-c", PEER_PIPELINE, str(rows), str(vocab), str(BATCH), str(seconds)]
        for number in range(rounds):
            ours.append(_tokens_a_second(pipeline.batches(examples, _config(examples, length)), seconds))
            for form, runs in theirs.items():
                runs.append(float(subprocess.run([*peer, form], capture_output=True, text=True, check=True).stdout))
            speeds = ", ".join(f"the peer with {form} {runs[-1] / 1e6:.1f}" for form, runs in theirs.items())
            print(f"{length}, round {number + 1}: {ours[-1] / 1e6:.1f} M tokens/s, {speeds}", flush=True)
    whole = _tokens_a_second(pipeline.batches(examples, _config(examples, length, whole_word=True)), seconds)
    print(f"{length}, bert-jax: {statistics.median(ours) / 1e6:.1f} M tokens/s, whole words {whole / 1e6:.1f}")
    for form, runs in theirs.items():
        ratios = [a / b for a, b in zip(ours, runs, strict=True)]
        ratio = (
            f"ratio, median of {rounds} rounds: {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"
        )
        print(f"{length}, the peer with {form}: {statistics.median(runs) / 1e6:.1f} M tokens/s, {ratio}")


def _tokens_a_second(batches: Iterator[dict], seconds: float) -> float:
    for _ in range(8):  # As for the peer, the start isn't counted.
        next(batches)
    start, tokens = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        tokens += next(batches)["input_ids"].size
    return tokens / (time.perf_counter() - start)


def _ids(examples: Examples, length: int) -> np.ndarray:
    """[examples, length] the ids of the training split, as on disk but without the bits of words."""
    reader = examples.split("train", length)
    ids = reader.read(np.arange(len(reader)))[:, HEADER:]
    if examples.manifest["config"]["examples"]["word_segmenter"]:
        ids &= continues_bit(examples.dtype) - 1
    return ids.astype(examples.dtype)


def _stages(examples: Examples, length: int, seconds: float) -> None:
    """The time of a batch in each stage alone, and of passing a finished batch through tf.data to NumPy."""
    from bert_jax.data import pipeline
    from bert_jax.data.tensorflow import tf

    config = _config(examples, length)
    maker = pipeline.Maker.from_config(examples, config, config.phases[0], "train")
    shuffled = tf.function(lambda step: maker.shuffled(step, 0))
    masked = tf.function(maker.masked)
    step = tf.constant(LATE_STEP, tf.int64)
    indices = shuffled(step)
    records = tf.constant(maker.reader.read(indices.numpy()))
    made = masked(records, indices, step)
    finished = pipeline.run(tf.data.Dataset.range(1 << 60), lambda _: dict(made))
    stages = {
        "shuffled indices": lambda: shuffled(step),
        "read": lambda: maker.reader.read(indices.numpy()),
        "mask": lambda: masked(records, indices, step),
        "tf.data, to numpy": lambda: next(finished),
    }
    costs = (f"{name} {_milliseconds(stage, seconds / len(stages)):.2f}" for name, stage in stages.items())
    print(f"{length}, ms a batch of each stage alone: {', '.join(costs)}", flush=True)


def _milliseconds(stage: Callable, seconds: float) -> float:
    stage()
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        stage()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _first_batches(examples: Examples, length: int, rounds: int) -> None:
    """The time from opening a folder of `MANY_EXAMPLES` to the first batch, at the first step and at a late one."""
    from bert_jax.data import pipeline

    times: dict[int, list[float]] = {0: [], LATE_STEP: []}
    with tempfile.TemporaryDirectory() as folder:
        _repeat(examples, length, Path(folder))
        for _ in range(rounds + 1):
            for step, seconds in times.items():
                start = time.perf_counter()
                many = Examples(folder)
                next(pipeline.batches(many, _config(many, length), step))
                seconds.append(time.perf_counter() - start)
    first, late = (statistics.median(seconds[1:]) for seconds in times.values())
    both = f"{first:.2f} s at step 0, {late:.2f} s at step {LATE_STEP:,}"
    print(f"{length}, first batch of {MANY_EXAMPLES:,} examples: {both}, ratio {late / first:.2f}", flush=True)


def _repeat(examples: Examples, length: int, folder: Path) -> None:
    """Makes `folder` a folder of at least `MANY_EXAMPLES`, with repeated links to the training files."""
    source, target = (path / str(length) / "train" for path in (examples.local.absolute(), folder))
    target.mkdir(parents=True)
    shards = []
    for copy in range(-(-MANY_EXAMPLES // len(examples.split("train", length)))):
        for shard in examples.manifest["lengths"][str(length)]["train"]:
            shards.append(shard | {"name": f"{copy:05d}-{shard['name']}"})
            (target / shards[-1]["name"]).symlink_to(source / shard["name"])
    manifest = examples.manifest | {"lengths": {str(length): {"train": shards, "held_out": []}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "tokenizer.json").write_text(json.dumps(examples.tokenizer.to_dict()))
