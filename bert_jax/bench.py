"""Measurements beside a peer, in alternating rounds of one run: on a shared machine only the ratio says much."""

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bert_jax.config import InputError

# transformers' fast tokenizer on the same lines, as one would call it, and nothing else.
PEER = """
import sys
from transformers import BertTokenizer
lines = [line for line in open(sys.argv[1], encoding="utf-8").read().split("\\n") if line]
BertTokenizer(sys.argv[2])(lines, return_attention_mask=False, return_token_type_ids=False)
"""


def bench_prepare(text: Path, vocab: Path, rounds: int) -> None:
    """`bert-jax prepare` of a text file beside the fast tokenizer alone; its peak memory for a tenth of the file."""
    if importlib.util.find_spec("transformers") is None:
        raise InputError("the peer isn't here: pip install -e '.[test]'")
    for file in (text, vocab):
        if not file.is_file():
            raise InputError(f"{file}: no such file")
    with tempfile.TemporaryDirectory() as folder:
        tenth = Path(folder) / "tenth.txt"
        content = text.read_text(encoding="utf-8")
        tenth.write_text(content[: len(content) // 10], encoding="utf-8")
        size = text.stat().st_size
        # Starting Python and importing is part of both.
        peer = [sys.executable, "-c", PEER, str(text), str(vocab)]
        ours, theirs = [], []
        _measure(_prepare(text, vocab, folder))  # Warms the file cache.
        for number in range(rounds):
            ours.append(_measure(_prepare(text, vocab, folder)))
            theirs.append(_measure(peer))
            seconds = f"prepare {ours[-1][0]:.1f} s, the tokenizer alone {theirs[-1][0]:.1f} s"
            print(f"round {number + 1}: {seconds}", flush=True)
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
    # One length, as one phase would have it.
    return [*command, "--phases.1.sequence-length", "128", "--phases.1.max-predictions", "20"]


def _measure(command: list[str]) -> tuple[float, int]:
    """Seconds of the command, and the most memory that it and its children held at once, in bytes."""
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
        pass  # It ended while we looked.
    return total
