"""`bert-jax bench encode`: vectors of sentences, measured against torch in alternating rounds of one run.

torch has its own process, which waits while ours computes: its threads would take time from ours.
"""

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.bench import compile_seconds, of_a_peer, product
from bert_jax.config import InputError, ModelConfig
from bert_jax.config.models import Dtype
from bert_jax.devices.precision import computed
from bert_jax.inference.bert import Bert
from bert_jax.inference.engine import POSITIONS
from bert_jax.inference.loading import load

# transformers' encoder and fast tokenizer, with mean pooling. Each JSON line that it reads asks for a measurement, with
# the order of the sentences and the batch size.
PEER = """
import json, numpy, sys, time, torch
from transformers import AutoModel, AutoTokenizer, logging
from bert_jax.bench.torch_finetune import config_of
logging.set_verbosity_error()
logging.disable_progress_bar()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
dtype = getattr(torch, sys.argv[4])
model = AutoModel.from_pretrained(sys.argv[1], config=config_of(sys.argv[1])).eval().to(dtype)
sentences = open(sys.argv[2], encoding="utf-8").read().split("\\n")
longest = int(sys.argv[3])

def encode(sentences, batch, by_length):
    order = range(len(sentences))
    if by_length:
        lengths = [len(ids) for ids in tokenizer(sentences)["input_ids"]]
        order = sorted(order, key=lambda i: -lengths[i])
    vectors = [None] * len(sentences)
    for start in range(0, len(sentences), batch):
        chosen = order[start : start + batch]
        texts = [sentences[i] for i in chosen]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        pooled = (model(**inputs)[0].float() * mask).sum(1) / mask.sum(1)
        for i, vector in zip(chosen, pooled):
            vectors[i] = vector
    return torch.stack(vectors).numpy()

def roof(shapes):
    seconds = 0
    for rows, wide, out, times in shapes:
        x, w, b = (torch.randn(*size, dtype=dtype) for size in ((rows, wide), (out, wide), (out,)))
        measured = []
        for _ in range(20):
            start = time.perf_counter()
            torch.nn.functional.linear(x, w, b)
            measured.append(time.perf_counter() - start)
        seconds += times * sorted(measured)[len(measured) // 2]
    return seconds

with torch.inference_mode():
    for line in sys.stdin:
        asked = json.loads(line)
        if "roof" in asked:
            print(roof(asked["roof"]), flush=True)
            continue
        start = time.perf_counter()
        vectors = encode(sentences[:: asked["every"]], asked["batch"], asked["sorted"])
        seconds = time.perf_counter() - start
        if "save" in asked:
            numpy.save(asked["save"], vectors)
        print(seconds, flush=True)
"""
BATCHES = (16, 32, 64, 128, 256)
# To choose the batch size, one in this many sentences is encoded.
SAMPLE = 8
# Asks the peer for a measurement and returns its seconds; for "roof", those of the given matrix products.
Ask = Callable[..., float]


def bench_encode(model: str, files: list[Path], rounds: int, dtype: Dtype) -> None:
    """Sentences per second of `Bert.encode` and of torch, whose batches are sorted by length, or in the given order.

    With bfloat16, torch's whole model is in that type."""
    if importlib.util.find_spec("transformers") is None:
        raise InputError("the peer isn't here: pip install -e '.[test]'")
    sentences = []
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file")
        sentences += file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    bert = load(model, dtype=dtype)
    compiled = compile_seconds()
    first = bert.encode(sentences, "mean", False)
    compiling = f"{sum(compiled):.1f} s for {len(compiled)} programs"
    with _peer(model, sentences, bert) as ask:
        best = {by_length: _best_batch(ask, by_length) for by_length in (True, False)}
        ours, by_length, unsorted = [], [], []
        for number in range(rounds):
            start = time.perf_counter()
            bert.encode(sentences, "mean", False)
            ours.append(len(sentences) / (time.perf_counter() - start))
            by_length.append(len(sentences) / ask(sorted=True, batch=best[True], every=1))
            unsorted.append(len(sentences) / ask(sorted=False, batch=best[False], every=1))
            speeds = f"torch sorted {by_length[-1]:.0f}, unsorted {unsorted[-1]:.0f}"
            print(f"round {number + 1}: {ours[-1]:.0f} sentences/s, {speeds}", flush=True)
        roofs = _roofs(bert.config, ask)
        difference = _difference(ask, first, best[True])
    _report(bert, sentences, rounds, compiling, (ours, by_length, unsorted), best, roofs, difference)


@contextlib.contextmanager
def _peer(model: str, sentences: list[str], bert: Bert) -> Iterator[Ask]:
    longest = bert.embedding.max_length or bert.config.max_position_embeddings
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sentences.txt"
        file.write_text("\n".join(sentences), encoding="utf-8")
        command = [sys.executable, "-W", "ignore", "-c", PEER, model, str(file), str(longest), bert.config.dtype]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=of_a_peer()
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            to, answers = process.stdin, process.stdout

            def ask(**what: Any) -> float:
                to.write(json.dumps(what) + "\n")
                to.flush()
                answer = answers.readline()
                if not answer:
                    raise InputError(f"{model}: the peer stopped; its message is above")
                return float(answer)

            try:
                yield ask
            finally:
                to.close()


def _best_batch(ask: Ask, by_length: bool) -> int:
    seconds = {batch: min(ask(sorted=by_length, batch=batch, every=SAMPLE) for _ in range(2)) for batch in BATCHES}
    return min(seconds, key=seconds.__getitem__)


def _difference(ask: Ask, ours: np.ndarray, batch: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        ask(sorted=True, batch=batch, every=1, save=str(file))
        return float(np.abs(ours - np.load(file)).max())


def _roofs(config: ModelConfig, ask: Ask) -> tuple[float, float]:
    """GFLOP/s of the dense layers' products alone, ours and torch's."""
    hidden, inner = config.hidden_size, config.intermediate_size
    rows = POSITIONS["cpu"]
    shapes = [(rows, hidden, hidden, 4), (rows, hidden, inner, 1), (rows, inner, hidden, 1)]
    flops = sum(2 * rows * wide * out * times for rows, wide, out, times in shapes)
    seconds, multiply = 0.0, product(computed(config, jax.default_backend()).dtype)
    for rows, wide, out, times in shapes:
        x, b = jnp.ones((rows, wide)), jnp.ones(out)
        w = jnp.ones((wide, out), config.dtype)  # As the engine holds them.
        seconds += times * statistics.median(_seconds(lambda: multiply(x, w, b).block_until_ready()) for _ in range(20))  # noqa: B023
    return flops / seconds / 1e9, flops / ask(roof=shapes) / 1e9


def _seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _report(bert, sentences, rounds, compiling, speeds, best, roofs, difference) -> None:
    ours, by_length, unsorted = speeds
    c = bert.config
    tokens = bert.tokenize(sentences)["attention_mask"].sum() / len(sentences)
    weights = c.num_hidden_layers * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    gigaflops = 2 * weights * tokens / 1e9
    print(f"{len(sentences)} sentences, {tokens:.1f} tokens each, {rounds} rounds, {c.dtype}")
    print(f"bert_jax: {statistics.median(ours):.0f} sentences/s; compiling, not counted, took {compiling}")
    for name, order, runs in (("sorted", True, by_length), ("unsorted", False, unsorted)):
        ratios = [a / b for a, b in zip(ours, runs, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        median = statistics.median(runs)
        print(f"torch, {name}, batches of {best[order]}: {median:.0f} sentences/s, ratio of ours to it {spread}")
    for name, roof, runs in (("bert_jax", roofs[0], ours), ("torch", roofs[1], by_length)):
        reached = gigaflops * statistics.median(runs)
        print(f"dense layers, {name}: {roof:.0f} GFLOP/s alone, {reached:.0f} of it reached: {reached / roof:.0%}")
    print(f"largest difference of a component of the vectors: {difference:.1e}")
