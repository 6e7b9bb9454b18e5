"""Commands are disturbed at random moments; given again, they must give what they give undisturbed, or say why not.

    python tests/faults/run.py --faults 1000 --seed 0

Each fault follows from its number alone. Its verdict is `same` (bit for bit), `refused` (a line that names file and
remedy, after which it was the same) or a failure: `different`, `traceback`, `hang`, or `unclear` (no file, no remedy).
"""

import argparse
import functools
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import harm
from forks import Process
from verdicts import FAILURES, Failure, Outcome, check_end, line_of, names, table
from world import COMMANDS, Command, World, describe

from bert_jax.training.scores import METRICS


def one(world: World, seed: int, command: Command, fault: str, folder: Path) -> Outcome:
    """Disturbs a command in a fresh `folder`."""
    case = _Case(world, command, random.Random(f"{seed} {command.name} {fault}"), folder)
    try:
        for kind, how in (
            (harm.RUNNING, case.running),
            (harm.STARVED, case.starved),
            (harm.DAMAGED, case.damaged),
            (harm.TOGETHER, case.together),
        ):
            if fault in kind:
                verdict = "refused" if how(fault) else "same"
                return Outcome(seed, command.name, fault, verdict, case.detail)
    except Failure as failure:
        return Outcome(seed, command.name, fault, failure.verdict, f"{failure} {case.detail}".strip())
    raise ValueError(fault)


class _Case:
    """One command in a folder of its own. Each kind of fault returns whether it was refused."""

    def __init__(self, world: World, command: Command, rng: random.Random, folder: Path):
        self._world, self._command, self._rng, self._folder = world, command, rng, folder
        self.detail = ""
        self._alone = rng.random() < 0.1
        world.copy(command, folder)

    # ---- Kinds of faults --------------------------------------------------------------------------------------------

    def running(self, fault: str) -> bool:
        self._strike(harm.RUNNING[fault])
        return self._again()

    def starved(self, fault: str) -> bool:
        with ExitStack() as stack:
            how: dict = {}
            if fault == "disk full":
                room = self._rng.randrange(2 * self._world.size[self._command.name])
                undo = stack.enter_context(harm.small_disk(self._folder, room))
                self.detail = f"({room:,} bytes left)"
            elif fault == "file too large":
                how["largest"] = self._rng.randrange(16_000, max(self._world.largest[self._command.name], 20_000))
                self.detail = f"({how['largest']:,} bytes)"
                undo = how.clear
            else:
                how["bound"] = True
                path = self._rng.choice([self._folder, *sorted(self._folder.rglob("*"))])
                undo = harm.forbid(path, fault)
                self.detail = f"({path.relative_to(self._folder)})"
            try:
                refused = self._refused(processes := self._finish(self._start(**how)))
                known = {path.name for path in self._folder.iterdir()} | {self._command.output}
                if refused and not any(name in line_of(processes) for name in known):
                    raise Failure("unclear", f"no file is named: {line_of(processes)}")
            finally:
                undo()
            return self._again(**how) or refused

    def damaged(self, fault: str) -> bool:
        patterns = list(self._command.guarded)
        if self._command.leaves and self._rng.random() < 0.7:
            strike = harm.RUNNING[self._rng.choice(["SIGKILL", "SIGTERM"])]
            self._strike(strike) if self._rng.random() < 0.7 else self._finish(self._start())
            patterns = [f"{self._command.leaves}/**/*"]
        files = [file for pattern in patterns for file in self._folder.glob(pattern)]
        if (
            fault == "folder deleted"
        ):  # A checkpoint that is gone as a whole was removed by somebody: nobody could tell.
            files = [file for file in files if not file.parent.name.isdigit()]
        if not (files := sorted(file for file in files if file.is_file() and not file.is_symlink())):
            return self._again()
        file = self._rng.choice(files)
        self.detail = f"({file.relative_to(self._folder)})"
        backup = shutil.copytree(self._folder, self._folder.with_name("backup"), symlinks=True)
        harm.DAMAGED[fault](file, self._rng)
        hurt = file if file.parent.exists() else file.parent
        return self._again(hurt=hurt, undo=lambda: self._undo(backup, file))

    def together(self, _: str) -> bool:
        first = self._start()
        first[0].wait(self._rng.uniform(0, self._world.seconds[self._command.name]))
        second = self._start()
        refused = [self._refused(self._finish(processes)) for processes in (first, second)]
        return self._again() or any(refused)

    # ---- What they are made of --------------------------------------------------------------------------------------

    def _start(self, **how) -> list[Process]:
        return self._world.start(self._command, self._folder, self._alone, **how)

    def _strike(self, strike: harm.Strike) -> None:
        processes = self._start()
        seconds = self._world.seconds[self._command.name]
        self._rng.choice(processes).wait(self._rng.uniform(0.1, 1.1 * seconds))
        victim = self._rng.choice(processes)
        self._finish(processes, strike(victim, self._rng))

    def _finish(self, processes: list[Process], signals: tuple[int, ...] = ()) -> list[Process]:
        """Waits for their end, which must be one that may be."""
        check_end(processes, signals, 60 + 20 * self._world.seconds[self._command.name])
        return processes

    def _refused(self, processes: list[Process]) -> bool:
        return any(process.code for process in processes)

    def _again(self, hurt: Path | None = None, undo: Callable | None = None, **how) -> bool:
        """Gives the command until it is done, doing what it asks for; returns whether it asked."""
        asked = False
        for _ in range(6):
            processes = self._finish(self._start(**how))
            if not self._refused(processes):
                break
            line = line_of(processes)
            if self._is_there(line):
                break
            asked = True
            if hurt and not names(line, hurt, self._folder):
                raise Failure("unclear", f"{hurt.relative_to(self._folder)} isn't named: {line}")
            if not self._remove_named(line):
                if undo is None:
                    raise Failure("unclear", f"refused for nothing that is known: {line}")
                undo()
                undo = None
        else:
            raise Failure("unclear", f"refused again and again: {line}")
        expected = self._world.expected[self._command.name]
        try:
            found = self._command.result(self._folder / self._command.output)
        except Exception as error:
            raise Failure("different", f"can't be read: {error}") from None
        if hurt and (lost := self._lost(hurt, asked)):
            found, expected = (
                {name: value for name, value in of.items() if name not in lost} for of in (found, expected)
            )
        if difference := describe(found, expected):
            raise Failure("different", difference)
        return asked

    def _lost(self, hurt: Path, asked: bool) -> set[str]:
        """The results that depend on the damaged file. A score is removed if a line asks for it, and says what then."""
        if hurt.name == METRICS:
            return {"best", "steps"} if asked else set()
        return {"rows"} if hurt.name == "metrics.jsonl" else set()

    def _is_there(self, line: str) -> bool:
        """Whether what the command makes was already whole when it was disturbed."""
        return "exists; choose another" in line and f"{self._command.output}:" in line

    def _remove_named(self, line: str) -> bool:
        """Does what a line asks for, where it is to remove something."""
        for name in re.findall(r"\b(?:remove|rm -r) ([^\s;,]+)", line):
            path = self._folder / name
            if path.exists() and path.is_relative_to(self._folder) and self._command.output in path.parts[-4:]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                return True
        return False

    def _undo(self, backup: Path, file: Path) -> None:
        """Copies a damaged file anew from where it came from, or its folder."""
        there = backup / file.relative_to(self._folder)
        if file.parent.exists():
            shutil.copy2(there, file)
        else:
            shutil.copytree(there.parent, file.parent)


# ---- Many -----------------------------------------------------------------------------------------------------------


def drawn(seed: int, commands: list[Command], faults: list[str]) -> tuple[Command, str]:
    rng = random.Random(seed)
    command = rng.choices(commands, [command.weight for command in commands])[0]
    return command, rng.choice([fault for fault in faults if fault not in command.unnoticed])


def run(world: World, seeds, commands: list[Command] = COMMANDS, side_by_side: int = 2, tell=print) -> list[Outcome]:
    """The outcomes of the faults with these numbers, in their order."""
    faults = [fault for fault in harm.ALL if fault != "disk full" or harm.can_mount()]
    chosen = {seed: drawn(seed, commands, faults) for seed in seeds}
    for command in commands:
        if any(command is one for one, _ in chosen.values()):
            world.build(command)

    def do(seed: int) -> Outcome:
        command, fault = chosen[seed]
        place = Path(tempfile.mkdtemp(prefix=f"fault_{seed}_", dir=world.folder))
        outcome = one(world, seed, command, fault, place / "world")
        tell(outcome)
        shutil.rmtree(place, ignore_errors=True)
        return outcome

    with ThreadPoolExecutor(side_by_side) as pool:
        return list(pool.map(do, seeds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, nargs="+", help="these numbers alone")
    parser.add_argument("--side-by-side", type=int, default=2)
    parser.add_argument("--commands", nargs="+", default=[command.name for command in COMMANDS])
    options = parser.parse_args()
    commands = [command for command in COMMANDS if command.name in options.commands]
    with tempfile.TemporaryDirectory(prefix="bert_jax_faults_", ignore_cleanup_errors=True) as folder:
        world = World(Path(folder))
        seeds = options.only or range(options.seed, options.seed + options.faults)
        tell = functools.partial(print, file=sys.stderr, flush=True)
        outcomes = run(world, seeds, commands, options.side_by_side, tell)
        world.close()
    print(table(outcomes))
    return int(any(outcome.verdict in FAILURES for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
