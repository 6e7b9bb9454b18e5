"""The commands that are disturbed, in a small world of their own; and what each gives where nothing disturbs it."""

import dataclasses
import hashlib
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # For whoever runs this without pytest.

from conftest import small_config, write_corpus
from forks import Forks, Process, Start
from workdirs import saved_state, write_config

from bert_jax.files import storage
from bert_jax.files.folders import LOCK
from bert_jax.training import metrics
from bert_jax.training.checkpoints import Checkpoints

Result = dict[str, object]
SPEEDS = ("tokens_per_second", "text_tokens_per_second")

# ---- What a command gives, by name ----------------------------------------------------------------------------------


def of_files(folder: Path) -> Result:
    """But for a lock, and the note of `prepare`'s job, that one left behind which was killed: they hold nothing."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in (LOCK, "job.json"))
    return {str(file.relative_to(folder)): _digest(file.read_bytes()) for file in files}


def of_run(workdir: Path) -> Result:
    """The last state, which checkpoints are kept and which is the best, and what was measured."""
    checkpoints = Checkpoints(workdir / "checkpoints")
    rows = [{n: v for n, v in row.items() if n not in SPEEDS} for row in metrics.read(workdir / "metrics.jsonl")]
    about = {"steps": checkpoints.steps, "best": checkpoints.best, "rows": rows}
    return about | _arrays(workdir, checkpoints.latest)


def of_import(folder: Path) -> Result:
    return _arrays(folder, 0)


def _arrays(folder: Path, step: int | None) -> Result:
    state = {} if step is None else saved_state(folder, step)
    return {name: f"{_digest(x.tobytes())} {x.dtype}{x.shape}" for name, x in state.items()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# ---- The commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One that is disturbed. All names of folders and files are those in the world."""

    name: str
    arguments: tuple[str, ...]
    output: str
    result: Callable[[Path], Result]
    takes: tuple[str, ...] = ()
    """Folders that other commands made."""
    guarded: tuple[str, ...] = ()
    """Files of these that may be damaged. Not a text of one's own, which may hold any bytes."""
    leaves: str | None = None
    """Where what it leaves lies when it is stopped, to go on with."""
    unnoticed: tuple[str, ...] = ()
    """Faults that nothing can notice: other people's files carry no checksums."""
    processes: int = 1
    weight: int = 4
    """How often it is disturbed, for what it takes."""

    def given(self) -> list[list[str]]:
        """The arguments of each of its processes."""
        if self.processes == 1:
            return [list(self.arguments)]
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = min(probe.getsockname()[1], 65_000)
        flags = ["--distributed", "--coordinator", f"localhost:{port}", "--processes", str(self.processes)]
        flags += ["--timeout", "60", "--process"]
        return [[*self.arguments, *flags, str(i)] for i in range(self.processes)]


_PRETRAIN = ("pretrain", "--config", "small.py", "--workdir", "run", "--examples", "examples")
_OF_RUN = dict(output="run", result=of_run, takes=("examples",), guarded=("examples/**/*",), leaves="run")
_FINETUNE = (
    "finetune",
    "--workdir",
    "tuned",
    "--init",
    "imported",
    "--task.train",
    "train.tsv",
    "--task.dev",
    "dev.tsv",
)
_FINETUNE += ("--epochs", "3", "--batch-size", "8", "--sequence-length", "32", "--run.log-every", "1")
COMMANDS = [
    Command(
        "prepare",
        ("prepare", "--config", "small.py", "--output", "examples"),
        output="examples",
        result=of_files,
        leaves="examples.partial",
    ),
    Command("pretrain", _PRETRAIN, **_OF_RUN, weight=2),
    Command("pretrain, two processes", _PRETRAIN, **_OF_RUN, processes=2, weight=1),
    Command(
        "export",
        ("export", "run", "exported", "--format", "hf"),
        output="exported",
        result=of_files,
        takes=("run",),
        guarded=("run/checkpoints/**/*",),
    ),
    Command(
        "import",
        ("import", "exported", "imported"),
        output="imported",
        result=of_import,
        takes=("exported",),
        guarded=("exported/config.json", "exported/model.safetensors", "exported/tokenizer.json"),
        unnoticed=("bit flipped",),
    ),
    Command(
        "finetune",
        _FINETUNE,
        output="tuned",
        result=of_run,
        takes=("imported",),
        guarded=("imported/checkpoints/**/*",),
        leaves="tuned",
        weight=2,
    ),
    Command(
        "evaluate",
        ("evaluate", "--model", "tuned", "--output", "scored"),
        output="scored",
        result=of_files,
        takes=("tuned",),
        guarded=("tuned/checkpoints/**/*",),
    ),
]


class World:
    """A folder with the inputs, and with what each command made of them undisturbed, to be copied from."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.seconds: dict[str, float] = {}
        """What each command takes."""
        self.expected: dict[str, Result] = {}
        self.size: dict[str, int] = {}
        """Bytes of what it makes."""
        self.largest: dict[str, int] = {}
        """Of its largest file."""
        cache = folder / "cache"
        cache.mkdir()
        self._forks = Forks(JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
        self._inputs = folder / "inputs"
        _write_inputs(self._inputs)

    def build(self, command: Command) -> None:
        """Its result, which others take."""
        clean = self.folder / f"{command.processes}"
        if command.name in self.expected:
            return
        for other in COMMANDS:
            if other.output in command.takes and other.processes == 1:
                self.build(other)
        if not clean.exists():
            shutil.copytree(self._inputs, clean)
        for name in command.takes:
            if not (clean / name).exists():
                shutil.copytree(self.folder / "1" / name, clean / name)
        begin = time.monotonic()
        processes = self.start(command, clean)
        assert all(process.wait(600) for process in processes)
        assert [process.code for process in processes] == [0] * command.processes, processes[0].said()
        self.seconds[command.name] = time.monotonic() - begin
        made = [file.stat().st_size for file in (clean / command.output).rglob("*") if file.is_file()]
        self.size[command.name], self.largest[command.name] = sum(made), max(made)
        self.expected[command.name] = command.result(clean / command.output)

    def close(self) -> None:
        self._forks.close()

    def copy(self, command: Command, folder: Path) -> Path:
        """All that the command takes."""
        shutil.copytree(self._inputs, folder)
        for name in command.takes:
            shutil.copytree(self.folder / "1" / name, folder / name)
        return folder

    def start(self, command: Command, folder: Path, alone: bool = False, **how) -> list[Process]:
        """One process, or several that are one run."""
        logs = tempfile.mkdtemp(prefix="logs_", dir=self.folder)
        environment = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "tmp")}
        return [
            self._forks.start(Start(given, str(folder), f"{logs}/{i}", environment=environment, **how), alone)
            for i, given in enumerate(command.given())
        ]


def _write_inputs(folder: Path) -> None:
    (folder / "tmp").mkdir(parents=True)
    write_corpus(folder / "text.txt", documents=30)
    config = small_config(Path("text.txt"))
    phase = dataclasses.replace(config.phases[0], steps=12)
    run = dataclasses.replace(config.run, evaluate_every=6, checkpoint_every=3)
    write_config(folder / "small.py", dataclasses.replace(config, phases=(phase,), run=run))
    for name, rows in (("train", 40), ("dev", 12)):
        lines = [f"the dog sees {i} birds\tgood" if i % 3 else f"no king has {i} clocks\tbad" for i in range(rows)]
        storage.write_whole(folder / f"{name}.tsv", "\n".join(["text\tlabel", *lines, ""]).encode())


def describe(difference: Result, expected: Result) -> str:
    """The first of the names of which the values differ."""
    for name in sorted({*difference, *expected}):
        if difference.get(name) != expected.get(name):
            there, here = (json.dumps(of.get(name))[:200] for of in (expected, difference))
            return f"{name}: {here}, undisturbed {there}"
    return ""
