"""The command line. Each command imports what it needs when it runs, so that help comes at once."""

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

import bert_jax
from bert_jax import storage
from bert_jax.config import FinetuneConfig, InputError, PretrainConfig
from bert_jax.config_files import load_config

HELP = """\
usage: bert-jax COMMAND [options]

BERT for JAX: pretrain, fine-tune, evaluate, predict, and move weights in and out.

commands:
  prepare   text -> tokenizer and examples on disk
  pretrain  train a model on them; prepares what is missing, resumes by itself
  finetune  train a pretrained model on a task
  evaluate  a task's scores, or a pretrained model's loss on any text
  predict   fill-mask, embed, classify, tag, answer: use a trained model on texts
  import    a Hugging Face or google-research folder -> a folder of ours
  export    a model -> a folder of Hugging Face, TensorFlow 1, ONNX or StableHLO
  plan      what a run needs and how long it takes on TPUs that aren't here
  bench     prepare, pipeline, encode, finetune: measured beside a peer, in alternating rounds

bert-jax COMMAND --help lists a command's options; every setting of the config is one of them.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 2 for bad input, 128 + n when signal n stopped it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(bert_jax.__version__)
        return 0
    if not sys.stderr.isatty():  # In a log, a progress bar every ten seconds is enough.
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    before = signal.signal(signal.SIGTERM, _terminate) if _in_main_thread() else None
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"no command {arguments[0]!r}; there are {', '.join(COMMANDS)} (bert-jax --help)")
        with storage.errors_in_one_line():
            return COMMANDS[arguments[0]](arguments[1:]) or 0
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:  # Whoever read our output, like head, has enough.
        sys.stdout = None
        return 141
    except OSError as error:
        # A full disk, a folder that can't be written: the person's to mend. Anything else is a bug, with its traceback.
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR):
            raise
        return _fail(f"{error.filename or 'writing'}: {error.strerror}")
    except KeyboardInterrupt:
        print("\nbert-jax: interrupted", file=sys.stderr)
        return 130
    finally:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _terminate(number, _):
    """Lets what is under way clean up; the training loop, which saves first, has a handler of its own."""
    sys.exit(128 + number)


def _fail(message: str) -> int:
    print(f"bert-jax: {message}", file=sys.stderr)
    return 2


# The config's fields are options of the command itself: --optimizer.learning-rate, without --config before it.
ConfigFields = Annotated[PretrainConfig, tyro.conf.arg(name="")]
ConfigName = Annotated[str, tyro.conf.arg(name="config", metavar="FILE|NAME")]
OptionalConfigName = Annotated[str | None, tyro.conf.arg(name="config", metavar="FILE|NAME")]


@dataclass(frozen=True)
class Prepare:
    """Turns a corpus into a tokenizer and unmasked examples on disk."""

    config_name: ConfigName
    """A config file, or the name of one that ships with bert_jax."""
    config: ConfigFields
    output: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder to make; it may lie in a bucket (gs://), as all folders here."""
    overwrite: bool = False
    """Replace the folder if it exists."""
    dry_run: bool = False
    """Make nothing, but say from a sample of the corpus what would be made, and in what time."""
    show: int = 0
    """Print so many examples of the folder, as a person reads them; where there is none yet, it is made first."""
    runner: str | None = None
    """Do the work with Apache Beam: DirectRunner, DataflowRunner, ... Beam's options follow a bare `--`."""


def _prepare(arguments: list[str]) -> None:
    arguments, beam_options = _parted(arguments)
    command = _parse(Prepare, arguments)
    if command.dry_run:
        from bert_jax.data.dry_run import dry_run

        dry_run(command.config)
        return
    if not command.output:
        raise InputError("--output: name the folder to make")
    from bert_jax.data.prepare import prepare

    if not command.show or command.overwrite or not storage.path(command.output).exists():
        engine = _beam_engine(command.runner, beam_options) if command.runner else None
        prepare(command.config, command.output, command.overwrite, engine)
    if command.show:
        from bert_jax.data.records import Examples
        from bert_jax.data.show import show

        print("\n\n".join(show(Examples(command.output), command.config, command.show)))


def _parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and behind a bare `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _beam_engine(runner: str, options: list[str]):
    try:
        from bert_jax.data.beam import BeamEngine
    except ModuleNotFoundError as error:
        raise InputError(f"--runner {runner}: Apache Beam isn't here ({error}); pip install 'bert-jax[beam]'") from None
    return BeamEngine([f"--runner={runner}", *options])


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """Options of a command that several processes run together."""

    distributed: bool = False
    """This is one process of several. Cloud TPU, Slurm and Kubernetes tell which; elsewhere the next three do."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where all meet; the port after it must be free too."""
    processes: int | None = None
    """How many processes the run has."""
    process: int | None = None
    """The number of this one, from 0."""
    timeout: float = 300.0
    """Seconds to wait for the others, at the start and at the end."""


@dataclass(frozen=True)
class Pretrain(Distributed):
    """Pretrains a model in a workdir, or goes on where it was."""

    workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Holds the run: checkpoints, metrics, plot, and the examples unless they lie elsewhere."""
    config_name: ConfigName
    """A config file, or the name of one that ships with bert_jax."""
    config: ConfigFields
    examples_folder: Annotated[str | None, tyro.conf.arg(name="examples", metavar="FOLDER")] = None
    """Examples that bert-jax prepare made, to be used instead of the config's corpus and tokenizer."""
    init: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """A model (a workdir, a checkpoint's folder, a Hugging Face folder) to take the first weights, and without
    --tokenizer.path the tokenizer, from."""
    profile: bool = False
    """Write a trace of a few steps into the workdir."""


def _pretrain(arguments: list[str]) -> int:
    command = _parse(Pretrain, arguments)

    def prepare_missing() -> None:
        from bert_jax.data.prepare import is_missing, prepare

        own = storage.path(command.workdir) / "examples"
        if command.examples_folder is None and is_missing(own):
            prepare(command.config, own, tokenizer=_tokenizer_of(command.init) if command.init else None)

    def run() -> int:
        from bert_jax.pretrain import pretrain

        result = pretrain(command.config, command.workdir, command.examples_folder, command.init, command.profile)
        return 128 + result.signal if result.signal else 0

    return _together(command, ["pretrain", *arguments], run, prepare_missing)


def _together(command: Distributed, arguments: list[str], run: Callable[[], int], prepare: Callable = lambda: None):
    """Runs the command here, or as one of several processes that supervisors watch; `prepare` in the first alone."""
    if not command.distributed:
        return run()
    from bert_jax import cluster, supervisor

    role = supervisor.role()
    if role is None:
        place = cluster.find(command.coordinator, command.processes, command.process)
        return supervisor.supervise(place, arguments, command.timeout)
    supervisor.end_with_parent()
    if role == supervisor.PREPARE:
        prepare()
        return 0
    supervisor.join()
    return run()


@dataclass(frozen=True)
class Finetune(Distributed):
    """Fine-tunes a pretrained model on a task in a workdir, or goes on where it was."""

    workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Holds the run: checkpoints, metrics, plot; with several seeds or rates, a folder for each run."""
    init: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """The pretrained model: a workdir, a checkpoint's folder, or a Hugging Face folder."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    config_name: OptionalConfigName = None
    """A config file, or the name of one that ships with bert_jax (none: a table of one's own)."""
    task: Annotated[str | None, tyro.conf.arg(name="task", metavar="TASK")] = None
    """Which of the config file's tasks, as rte of finetune_glue."""
    seeds: int = 1
    """Runs with so many seeds, from the config's on, one after the other; ends in mean and deviation."""
    learning_rates: tuple[float, ...] = ()
    """Runs all seeds at each of these rates."""
    profile: bool = False
    """Write a trace of a few steps into the workdir."""


def _finetune(arguments: list[str]) -> int:
    command = _parse(Finetune, arguments)

    def run() -> int:
        from bert_jax.finetune import finetune, sweep

        if command.seeds > 1 or command.learning_rates:
            summary = sweep(command.config, command.init, command.workdir, command.seeds, command.learning_rates)
            return 0 if summary else 128 + signal.SIGTERM
        result = finetune(command.config, command.init, command.workdir, command.profile)
        return 128 + result.signal if result.signal else 0

    return _together(command, ["finetune", *arguments], run)


@dataclass(frozen=True)
class EvaluateTask:
    """Scores a fine-tuned model on its task's files."""

    model: str
    """A workdir (its best checkpoint), a checkpoint's folder, or a Hugging Face folder."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    config_name: OptionalConfigName = None
    """A config file or name (default: the config that the model was trained with)."""
    task: Annotated[str | None, tyro.conf.arg(name="task", metavar="TASK")] = None
    """Which of the config file's tasks."""
    output: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """For scores, predictions, the official submission files, and a page to look at."""


@dataclass(frozen=True)
class EvaluateText:
    """Measures a pretrained model's loss on the config's corpus."""

    model: str
    """A workdir, a checkpoint's folder, or a Hugging Face folder."""
    config: ConfigFields
    config_name: OptionalConfigName = None
    """A config file or name (default: the config that the model was trained with)."""
    output: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """For scores.json."""


def _evaluate(arguments: list[str]) -> None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--model", "--config", "--task"):
        finder.add_argument(flag)
    named = finder.parse_known_args(arguments)[0]
    if not named.model:
        raise InputError("--model: name the model to evaluate")
    from bert_jax import evaluate, pretrained

    task = {"task": named.task} if named.task else {}
    found = pretrained.read(named.model)
    config = load_config(named.config, object, **task) if named.config else evaluate.config_of(found)
    if config is None:
        raise InputError(f"{named.model}: doesn't say what it was trained on; give a --config")
    kind = EvaluateTask if isinstance(config, FinetuneConfig) else EvaluateText
    command = tyro.cli(kind, prog="bert-jax evaluate", default=kind(named.model, config), args=arguments)
    output = storage.path(command.output) if command.output else None
    if kind is EvaluateTask:
        scores = evaluate.evaluate_task(found, command.config, output)
    else:
        scores = evaluate.evaluate_pretraining(found, command.config, output)
    for name, value in scores.items():
        print(f"{name}  {value:.4f}")


def _tokenizer_of(model: str):
    os.environ["JAX_PLATFORMS"] = "cpu"  # Reading it takes no accelerator from the process that trains.
    from bert_jax.pretrained import tokenizer_of

    return tokenizer_of(model)


@dataclass(frozen=True)
class Plan:
    """Compiles a run's training step for TPUs that aren't here: memory, FLOPs, traffic, time."""

    config_name: ConfigName
    """A config file, or the name of one that ships with bert_jax."""
    config: ConfigFields
    topology: str
    """The slice: v4, v5e, v5p or v6e and its chips along each axis, as v5e:4x4 or v5p:2x2x2."""
    slices: int = 1
    """So many of them, joined by the hosts' network."""
    phase: int | None = None
    """Plan this phase only; 0 is the first."""
    search: bool = False
    """Try other meshes, batch sizes and rematerialisation too; a table, the fastest first."""
    scaling: Path | None = None
    """Plan the phase (else the first) on slices of all sizes up to the topology; a plot and figures for this folder."""
    json: Path | None = None
    """A file to write the plans to."""


def _plan(arguments: list[str]) -> None:
    command = _parse(Plan, arguments)
    os.environ["JAX_PLATFORMS"] = "cpu"  # Before JAX starts: it shall take no accelerator that is here.
    from bert_jax.plan import plan

    options = dict(try_others=command.search, scaling_folder=command.scaling, json_file=command.json)
    plan(command.config, command.topology, command.slices, command.phase, **options)


def _parse(command: type, arguments: list[str]):
    """The command with the config that --config names, each of its fields overridden by the flag of its path."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--config", "--task"):
        finder.add_argument(flag)
    named = finder.parse_known_args(arguments)[0]
    required = {field.name: tyro.MISSING for field in fields(command) if field.default is MISSING}
    kind = FinetuneConfig if command in (Finetune, BenchFinetune) else PretrainConfig
    task = {"task": named.task} if named.task and kind is FinetuneConfig else {}
    config = load_config(named.config, kind, **task) if named.config else kind()
    default = command(**{**required, "config": config})
    parsed = tyro.cli(
        command,
        prog=f"bert-jax {re.sub('(?<=[a-z])(?=[A-Z])', ' ', command.__name__).lower()}",
        default=default,
        args=arguments,
    )
    parsed.config.validate()
    return parsed


def _predict(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bert-jax predict", description="Uses a trained model on texts.")
    tasks = parser.add_subparsers(dest="task", required=True)
    fill = tasks.add_parser("fill-mask", help="the most probable tokens for each [MASK]")
    fill.add_argument("--top", type=int, default=5, help="guesses for each [MASK]")
    embed = tasks.add_parser("embed", help="a vector for each text")
    default = "as the model's folder says, else"
    embed.add_argument("--pooling", choices=["mean", "cls"], help=f"of all tokens or [CLS] ({default} mean)")
    embed.add_argument("--normalize", action=argparse.BooleanOptionalAction, help=f"to length 1 ({default} not)")
    tab = "else a line may have its own, after a tab"
    classify = tasks.add_parser("classify", help="the class, or the value, of each text or pair")
    classify.add_argument("--pair", dest="second", metavar="TEXT", help=f"the second text of all; {tab}")
    tag = tasks.add_parser("tag", help="the named entities, or other spans, in each text")
    tag.add_argument("--predicate", dest="second", metavar="WORD", help=f"of semantic roles: whose roles; {tab}")
    answer = tasks.add_parser("answer", help="the answer to each question")
    answer.add_argument("--context", dest="second", metavar="TEXT", help=f"where it is looked for; {tab}")
    for task in (fill, embed, classify, tag, answer):
        task.add_argument("--model", required=True, help="a workdir, a checkpoint's folder or a Hugging Face folder")
        task.add_argument("--input", type=Path, metavar="FILE", help="UTF-8, a text on each line")
        task.add_argument("--output", type=Path, metavar="FILE", help="JSON lines; without it, standard output")
        task.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")
        task.add_argument("text", nargs="*", help="texts; without them and --input, standard input")
    options = parser.parse_args(arguments)
    _check_predict(options)
    from bert_jax import predict

    # Before the model is loaded and anything is written.
    checks = {"fill-mask": predict.needs_mask, "answer": lambda line: predict.needs_context(line, options.second)}
    check = checks.get(options.task, lambda _: None)
    for text in options.text:
        check(text)
    total = predict.count(options.input, check) if options.input else len(options.text)
    bert = bert_jax.load(options.model)
    if options.task == "fill-mask" and options.text and not options.output and sys.stdout.isatty():
        _print_filled(bert, options.text, options.top)
        return
    # What only the model can tell.
    checks |= {"fill-mask": bert.masked_ids, "tag": lambda line: predict.check_tag(bert, line, options.second)}
    check = checks.get(options.task, check)
    for text in options.text:
        check(text)
    texts = options.text or predict.texts(options.input, check)
    predict.run(_predictor(bert, options), texts, options.output, total or None, progress=not options.text)


def _predictor(bert, options: argparse.Namespace):
    from bert_jax import predict

    match options.task:
        case "fill-mask":
            return predict.fill_mask(bert, options.top)
        case "embed":
            return predict.embed(bert, options.pooling, options.normalize)
    return getattr(predict, options.task)(bert, options.second)


def _check_predict(options: argparse.Namespace) -> None:
    if options.text and options.input:
        raise InputError("give texts, or --input with a file of them, not both")
    if not options.text and not options.input and sys.stdin.isatty():
        raise InputError("give texts, --input with a file of them, or pipe them in")
    if options.output and options.output.exists() and not options.overwrite:
        raise InputError(f"{options.output}: exists; choose another, or --overwrite")
    if options.output and not options.output.absolute().parent.is_dir():
        raise InputError(f"{options.output}: there is no folder {options.output.parent}; make it first")
    if options.task == "fill-mask" and options.top < 1:
        raise InputError(f"--top: is {options.top}, must be at least 1")


def _print_filled(bert, texts: list[str], top: int) -> None:
    """As a person reads it."""
    for text, masks in zip(texts, bert.fill_mask(texts, top), strict=True):
        print(text)
        for guesses in masks:
            print("  " + ", ".join(f"{guess.token} {guess.probability:.1%}" for guess in guesses))


def _import(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bert-jax import", description="Makes a model of ours from another's folder.")
    parser.add_argument("source", help="a Hugging Face or google-research BERT folder, or any other MODEL")
    parser.add_argument("folder", help="the folder to make; pretrain takes it as --init, all others as --model")
    parser.add_argument(
        "--head", choices=["encoder", "masked_lm", "pretraining"], help="another head than the source's"
    )
    parser.add_argument("--allow-missing", action="store_true", help="give what is missing fresh values")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    options = parser.parse_args(arguments)
    from bert_jax import pretrained

    with storage.whole_folder(storage.path(options.folder), options.overwrite) as aside:
        found = pretrained.read(options.source, options.allow_missing)
        if options.head:
            found = pretrained.with_head(found, options.head, options.allow_missing)
        pretrained.save(found, aside)
    print(
        f"{options.folder}: {found.head.kind}, {found.model.num_hidden_layers} layers, {found.model.hidden_size} wide"
    )
    for line in found.report.lines():
        print(f"  {line}")


def _export(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bert-jax export", description="Writes a model for others to use.")
    parser.add_argument("model", help="a workdir, a checkpoint's folder, or a Hugging Face or google-research folder")
    parser.add_argument("folder", help="the folder to make")
    parser.add_argument("--format", required=True, choices=["hf", "tf1", "onnx", "stablehlo"])
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    options = parser.parse_args(arguments)
    from bert_jax import pretrained

    with storage.whole_folder(storage.path(options.folder), options.overwrite) as aside:
        pretrained.export(pretrained.read(options.model), aside, options.format)
    print(f"{options.folder}: {options.format}, {', '.join(sorted(p.name for p in Path(options.folder).iterdir()))}")


@dataclass(frozen=True)
class BenchFinetune:
    """Fine-tuning beside transformers in torch: scores and speed, a seed after the other, in turns."""

    init: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """A Hugging Face folder: both start from it."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    config_name: OptionalConfigName = None
    """A config file, or the name of one that ships with bert_jax."""
    task: Annotated[str | None, tyro.conf.arg(name="task", metavar="TASK")] = None
    """Which of the config file's tasks."""
    seeds: int = 3
    """So many, from the config's on."""


def _bench(arguments: list[str]) -> None:
    if arguments[:1] == ["finetune"]:
        command = _parse(BenchFinetune, arguments[1:])
        from bert_jax.bench.finetune import bench_finetune

        bench_finetune(command.config, command.init, command.seeds)
        return
    parser = argparse.ArgumentParser(prog="bert-jax bench", description="Measures bert_jax beside a peer, in turns.")
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("finetune", help="a task, beside transformers in torch; takes the options of bert-jax finetune")
    prepare = what.add_parser("prepare", help="text to examples, beside a fast tokenizer")
    prepare.add_argument("--files", required=True, type=Path, help="a text file")
    prepare.add_argument("--vocab", required=True, type=Path, help="a WordPiece vocab.txt")
    prepare.add_argument("--rounds", type=int, default=3)
    pipeline = what.add_parser("pipeline", help="examples to batches, beside a collator for masked words")
    pipeline.add_argument("--examples", required=True, help="a folder that bert-jax prepare made")
    pipeline.add_argument("--rounds", type=int, default=3)
    pipeline.add_argument("--seconds", type=float, default=5.0, help="length of a measurement")
    encode = what.add_parser("encode", help="sentences to vectors, beside torch with batches sorted by length, and not")
    encode.add_argument("--model", required=True, help="a Hugging Face folder of a BERT encoder")
    encode.add_argument("--files", required=True, type=Path, nargs="+", help="UTF-8, a sentence on each line")
    encode.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if options.what == "encode":
        from bert_jax.bench.encode import bench_encode

        bench_encode(options.model, options.files, options.rounds)
        return
    from bert_jax.bench import data

    if options.what == "prepare":
        data.bench_prepare(options.files, options.vocab, options.rounds)
    else:
        data.bench_pipeline(options.examples, options.rounds, options.seconds)


COMMANDS = {
    "prepare": _prepare,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "predict": _predict,
    "import": _import,
    "export": _export,
    "plan": _plan,
    "bench": _bench,
}
