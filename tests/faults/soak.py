"""A long training in one process, with evaluations and checkpoints: memory, open files and threads must not grow.

python tests/faults/soak.py --minutes 30

With each checkpoint TensorStore loses some memory, about 750 bytes for each array: see docs/reliability.md.
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
MOST = {"megabytes": 1.0, "files": 1, "threads": 1, "arrays": 20}
"""What may be more after that: of memory, each minute; of the others, altogether."""
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


def soak(minutes: float, every: int, folder: Path) -> tuple[list[Sample], int]:
    """Trains for so long, with an evaluation and a checkpoint `every` so many steps; returns the samples and the steps
    that were done."""
    config = small_config(write_corpus(folder / "text.txt"))
    phase = dataclasses.replace(config.phases[0], steps=10_000_000)
    run = dataclasses.replace(config.run, log_every=20, evaluate_every=every, checkpoint_every=every)
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


def growth(samples: list[Sample]) -> dict[str, float]:
    """After the warm-up, of memory in MB a minute; of what comes and goes, from the least in the first half to that in
    the second."""
    later = [sample for sample in samples if sample.minutes > samples[-1].minutes * WARM_UP]
    halves = later[: len(later) // 2], later[len(later) // 2 :]
    found = {
        name: float(np.diff([min(getattr(sample, name) for sample in half) for half in halves])[0])
        for name in ("files", "threads", "arrays")
    }
    memory = np.polyfit([sample.minutes for sample in later], [sample.megabytes for sample in later], 1)
    return {"megabytes": float(memory[0])} | found


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
    parser.add_argument("--every", type=int, default=1_000, help="steps between two checkpoints")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bert_jax_soak_") as folder, contextlib.redirect_stdout(sys.stderr):
        samples, steps = soak(options.minutes, options.every, Path(folder))
    grown = growth(samples)
    print(table(samples))
    print(f"\n{steps:,} steps in {samples[-1].minutes:.0f} minutes, saved every {options.every:,}.")
    print("Growth after the first third of them:\n")
    for name, value in grown.items():
        print(f"- {name}{' a minute' * (name == 'megabytes')}: {value:+.2f}, of {MOST[name]} that may be")
    return int(any(value > MOST[name] for name, value in grown.items()))


if __name__ == "__main__":
    sys.exit(main())
