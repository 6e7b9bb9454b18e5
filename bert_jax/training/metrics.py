"""Metrics of a run: one JSON line for each logged step, and the same for TensorBoard."""

import json
import math
from pathlib import Path

import jax

from bert_jax import storage
from bert_jax.training.chips import PEAK_FLOPS


def peak_flops() -> float | None:
    """Of all devices together, or None where the kind isn't known."""
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return peak and peak * jax.device_count()


class Metrics:
    """Writes `metrics.jsonl` and `tensorboard/` in the workdir, each step once; to a bucket, whenever they `upload`.

    Of several processes the first does. Lines after `step`, where the run goes on, are of work that was lost, and are
    dropped.
    """

    def __init__(self, workdir: Path, step: int):
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        from tensorboardX import SummaryWriter  # 200 MB, and whoever reads metrics needs none of them.

        self._mirror = storage.Mirror(workdir)
        file = self._mirror.folder / "metrics.jsonl"
        kept = [row for row in read(workdir / file.name) if row["step"] <= step]
        storage.write_whole(file, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._stream = open(file, "a", buffering=1)  # noqa: SIM115
        self._board = SummaryWriter(str(self._mirror.folder / "tensorboard"), purge_step=step + 1)
        self.upload()

    def write(self, step: int, values: dict[str, float]) -> None:
        if not self._writes:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._stream.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def upload(self) -> None:
        if self._writes:
            self._board.flush()
            self._mirror.upload()

    def close(self) -> None:
        if self._writes:
            self._stream.close()
            self._board.close()
            self._mirror.upload()


def read(file: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`; a last line cut off by a kill is left out."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]
