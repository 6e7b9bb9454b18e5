"""A long training in one process, with evaluations and checkpoints: memory, open files and threads must not grow.

python tests/faults/soak.py --minutes 30
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))  # For whoever runs this without pytest.

from conftest import small_config, write_corpus

from bert_jax.data.prepare import prepare
from bert_jax.runs.pretraining import pretrain

EVERY = 1.0
"""Seconds between two samples."""
WARM_UP = 1 / 3
"""Share of the time in which memory may grow: caches fill, and the heap finds its size."""
MOST = 1.0
"""MB a minute after that."""
ROWS = 12
"""Of the table."""


@dataclass(frozen=True)
class Sample:
    """What a process holds at a time."""

    minutes: float
    megabytes: float
    files: int
    threads: int
    arrays: int

    @staticmethod
    def now(begin: float) -> "Sample":
        import jax

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Sample(
            (time.monotonic() - begin) / 60,
            pages * os.sysconf("SC_PAGESIZE") / 1e6,
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
            len(jax.live_arrays()),
        )


def soak(minutes: float, folder: Path) -> tuple[list[Sample], int]:
    """Trains for so long; returns the samples and the steps that were done."""
    config = small_config(write_corpus(folder / "text.txt"))
    phase = dataclasses.replace(config.phases[0], steps=10_000_000)
    run = dataclasses.replace(config.run, log_every=20, evaluate_every=100, checkpoint_every=100)
    config = dataclasses.replace(config, phases=(phase,), run=run)
    examples = prepare(config, folder / "examples")
    samples: list[Sample] = []

    def watch():
        begin = time.monotonic()
        while time.monotonic() < begin + 60 * minutes:
            time.sleep(EVERY)
            samples.append(Sample.now(begin))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    result = pretrain(config, folder / "run", examples.folder)
    return samples, result.step


def slope(samples: list[Sample], name: str) -> float:
    """A minute's growth after the warm-up."""
    later = [sample for sample in samples if sample.minutes > samples[-1].minutes * WARM_UP]
    return np.polyfit([sample.minutes for sample in later], [getattr(sample, name) for sample in later], 1)[0]


def verdict(samples: list[Sample]) -> dict[str, tuple[float, bool]]:
    """Of each thing that is held, its growth a minute and whether that is flat."""
    minutes = samples[-1].minutes * (1 - WARM_UP)
    most = {"megabytes": MOST} | dict.fromkeys(("files", "threads", "arrays"), 1 / minutes)  # One in all the time.
    return {name: (growth := slope(samples, name), growth < limit) for name, limit in most.items()}


def table(samples: list[Sample]) -> str:
    names = [field.name for field in dataclasses.fields(Sample)]
    lines = [f"| {' | '.join(names)} |", "|" + "---:|" * len(names)]
    for sample in samples[:: max(len(samples) // ROWS, 1)]:
        values = dataclasses.astuple(sample)
        lines.append("| " + " | ".join([f"{values[0]:.1f}", f"{values[1]:,.1f}", *map(str, values[2:])]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bert_jax_soak_") as folder, contextlib.redirect_stdout(sys.stderr):
        samples, steps = soak(options.minutes, Path(folder))
    found = verdict(samples)
    print(table(samples))
    print(f"\n{steps:,} steps in {samples[-1].minutes:.0f} minutes. Growth a minute after the first third:")
    for name, (growth, flat) in found.items():
        print(f"- {name}: {growth:+.3f}, {'flat' if flat else '**grows**'}")
    return int(not all(flat for _, flat in found.values()))


if __name__ == "__main__":
    sys.exit(main())
