"""The scores of a run's checkpoints, each in a file of its own beside the checkpoint's parts, and their ranks."""

import json
from collections.abc import Sequence
from pathlib import Path

from bert_jax.config import InputError, first_line
from bert_jax.files import contents, storage

# A checkpoint's score is its only metric, and lies where Orbax keeps metrics.
METRICS, SCORE = "metrics", "score"


class Scores:
    """The scores of the checkpoints in a folder, by their steps. A damaged one is an error only where it decides."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._values: dict[int, float] = {}
        self._unread: dict[int, InputError] = {}

    def read(self, step: int, is_last: bool) -> None:
        """Reads a checkpoint's score, if it has one. The last one's may be missing: it is evaluated when the run goes
        on."""
        file = self._file(step)
        try:
            values = contents.json_object(file)
            contents.check_values(values, {SCORE: float, "checksum?": str}, file)
            score = values[SCORE]
            if values.get("checksum", contents.json_checksum([step, score])) != contents.json_checksum([step, score]):
                raise ValueError("isn't what was written")
            self._values[step] = score
        except FileNotFoundError:
            if file.parent.exists() and not is_last:
                self._unread[step] = self._bad(file, "missing")
        except (InputError, ValueError) as error:
            self._unread[step] = self._bad(file, f"damaged ({first_line(error)[:200]})")

    def _file(self, step: int) -> Path:
        return self._folder / str(step) / METRICS / METRICS

    def _bad(self, file: Path, problem: str) -> InputError:
        rest = f"the best checkpoint is unknown; {storage.removal(file.parent)} leaves this one without a score"
        return InputError(f"{file}: {problem}; {rest}")

    def write(self, step: int, score: float) -> None:
        """Writes a checkpoint's score."""
        file, values = self._file(step), {SCORE: score, "checksum": contents.json_checksum([step, score])}
        storage.make_folder(file.parent)
        storage.write_whole(file, json.dumps(values).encode())

    def add(self, step: int, score: float) -> None:
        """Notes a score that one of the run's processes has written."""
        self._values[step] = score

    def of(self, step: int) -> float | None:
        return self._values.get(step)

    def check(self) -> None:
        """Raises `InputError` if a score can't be read, so that the best checkpoint isn't known."""
        for error in self._unread.values():
            raise error

    def ranked(self, steps: Sequence[int]) -> list[int]:
        """The steps with a score, the best last; of two equal scores, the earlier step counts as better."""
        return sorted((step for step in steps if step in self._values), key=lambda step: (self._values[step], -step))
