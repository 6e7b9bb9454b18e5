"""How a command ended that was disturbed, held against what may be."""

import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import harm
from forks import Process

README = Path(__file__).parent.parent.parent / "README.md"
# The exit codes that the README has a line for, but for success and signals.
TOLD = {int(code) for code in re.findall(r"^\| (\d+) \|", README.read_text(), re.MULTILINE)} - {0, 130, 143}
BUGS = ("Traceback (most recent call last)", "Exception ignored", "Fatal Python error", "core dumped")
FAILURES = ("different", "traceback", "hang", "unclear")


class Failure(Exception):
    """A verdict that is none to have."""

    def __init__(self, verdict: str, why: str):
        super().__init__(why)
        self.verdict = verdict


@dataclass(frozen=True)
class Outcome:
    """How a fault ended."""

    seed: int
    command: str
    fault: str
    verdict: str
    detail: str = ""

    def __str__(self):
        return f"fault {self.seed}, {self.command}, {self.fault}: {self.verdict} {self.detail}".strip()


def check_end(processes: list[Process], signals: tuple[int, ...], limit: float) -> None:
    """Raises `Failure` where the processes of a command, sent these signals, don't end within a limit, or badly."""
    ended = [process.wait(limit) for process in processes]
    left = [line for process in processes for line in process.left(15 if all(ended) else 0)]
    said = "\n".join(process.said() for process in processes)
    if not all(ended):
        raise Failure("hang", _tail(said))
    if left:
        raise Failure("hang", f"left running: {left[0]}")
    if bug := next((bug for bug in BUGS if bug in said), None):
        raise Failure("traceback", _tail(said[said.index(bug) :]))
    # Signals may also come before a command has its handlers, or a second time.
    by_signal = {code for number in signals for code in (-number, 128 + number)}
    by_signal |= {128 + signal.SIGTERM} if signals and len(processes) > 1 else set()
    for process in processes:
        if process.code not in {0} | TOLD | by_signal:
            raise Failure("traceback", f"exit code {process.code} {_tail(said)}")
        if process.code in TOLD:
            _check_line(process, more=bool(signals) or len(processes) > 1)


def line_of(processes: list[Process]) -> str:
    """What a command that was refused says why."""
    return next((line for process in processes if process.code for line in _lines(process)), "")


def _lines(process: Process) -> list[str]:
    return [line for line in process.said().splitlines() if line.startswith("bert-jax: ")]


def _check_line(process: Process, more: bool) -> None:
    """That what it ended with is a line with a remedy; where there may be more, the first."""
    lines = _lines(process)
    if not lines or (len(lines) > 1 and not more):
        raise Failure("unclear", f"exit code {process.code}, {len(lines)} lines of its own: {_tail(process.said())}")
    if "; " not in lines[0]:
        raise Failure("unclear", f"no remedy: {lines[0]}")


def names(line: str, hurt: Path, folder: Path) -> bool:
    """Whether a line names what was hurt, or a folder around it that isn't the whole run's."""
    path = hurt.relative_to(folder)
    around = [parent for parent in path.parents if len(parent.parts) > 1]
    return any(str(name) in line for name in (path.name, *around))


def _tail(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return " | ".join([*lines[:1], *lines[-2:]])[-600:]


def table(outcomes: list[Outcome]) -> str:
    """A row a fault, a column a command: same + refused, and failures by their letters."""
    commands = sorted({outcome.command for outcome in outcomes})
    counts = Counter((o.fault, o.command, o.verdict) for o in outcomes)

    def cell(fault: str, command: str) -> str:
        good = [f"{n}" if (n := counts[fault, command, verdict]) else "0" for verdict in ("same", "refused")]
        bad = [f"**{n} {verdict}**" for verdict in FAILURES if (n := counts[fault, command, verdict])]
        return " ".join([" + ".join(good), *bad])

    lines = [f"| | {' | '.join(commands)} |", "|---|" + "---|" * len(commands)]
    for fault in harm.ALL:
        if any(o.fault == fault for o in outcomes):
            lines.append(f"| {fault} | " + " | ".join(cell(fault, command) for command in commands) + " |")
    total = Counter(o.verdict for o in outcomes)
    summary = ", ".join(f"{total[verdict]} {verdict}" for verdict in ("same", "refused", *FAILURES))
    return "\n".join([*lines, "", f"{len(outcomes)} faults: {summary}."])
