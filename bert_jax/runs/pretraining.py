"""A pretraining run from start to end: checks, prepares missing examples, trains, and reports the result."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from bert_jax.config import VOCABULARY_MULTIPLE, InputError, Phase, PretrainConfig
from bert_jax.config.files import config_of, differences, to_dict
from bert_jax.data import tokenizer_folders, tokenizers
from bert_jax.data.prepare import is_missing, prepare
from bert_jax.data.records import Examples
from bert_jax.devices import compiling, sharding
from bert_jax.devices.memory import Ahead, bytes_on_a_device
from bert_jax.files import folders, storage
from bert_jax.files.printable import say
from bert_jax.inference.loading import load
from bert_jax.models import losses, param_shapes
from bert_jax.objectives import HeadObjective
from bert_jax.runs.result import Result
from bert_jax.runs.start import Start, read_start
from bert_jax.training import loop, steps
from bert_jax.training.checkpoints import Checkpoints, check_same_run
from bert_jax.training.plot import plot_pretraining
from bert_jax.training.program import Program, batch_shapes, check_names, check_parts, pretraining_setup

# Sentences completed at the end of a run on the embedded corpus, to show what was learned.
SENTENCES = (
    "Return True [MASK] the string is empty.",
    "Return [MASK] if the object is a string.",
    "If [MASK] is not given, the default value is used.",
)


@storage.errors_in_one_line()
def pretrain(
    config: PretrainConfig,
    workdir: str | Path,
    examples: str | Path | None = None,
    init: str | Path | None = None,
    profile: bool = False,
) -> Result:
    """Trains an encoder with masked words and next sentences, or resumes the run in the workdir.

    Compiled programs are kept for other processes, in the folder that JAX was given, else in the user's cache:
    `config.run.compilation_cache`.

    Args:
      config: the run.
      workdir: holds checkpoints/, metrics.jsonl, tensorboard/, loss.png and, unless they lie elsewhere, examples/;
        a folder, or one of a bucket (gs://).
      examples: a folder that `prepare` made; the config's corpus and tokenizer are then not used, but for a
        `tokenizer.path`, which must be the one that made them.
      init: a model to take the first parameters from, as `pretrained.read` takes it; without a `tokenizer.path`, the
        examples are prepared with its tokenizer.
      profile: writes a trace of a few steps into the workdir.

    Returns:
      A `Result`: `step`, the `scores` after the last step (such as `held_out_mlm_loss`, in nats, and
      `held_out_mlm_accuracy`, from 0 to 1), `best`, the step with the lowest held-out loss, `workdir`, and `load()`,
      which gives that step's model as a `Bert`.

    Raises:
      InputError: the config doesn't fit the devices, examples or run to resume; then nothing is written.

    Example:
      >>> config = bert_jax.PretrainConfig(
      ...     corpus=bert_jax.CorpusConfig(source="text", files=("text.txt",), held_out=0.1),
      ...     tokenizer=bert_jax.TokenizerConfig(vocab_size=200),
      ...     model=bert_jax.model_preset("tiny", num_hidden_layers=1),
      ...     optimizer=bert_jax.OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
      ...     phases=(bert_jax.Phase(sequence_length=32, batch_size=8, steps=4, max_predictions=5),),
      ... )
      >>> result = bert_jax.pretrain(config, "runs/text")
      >>> result.step
      4
      >>> len(result.load().fill_mask("The dog [MASK] the hill.")[0])
      5
    """
    config.validate()
    check_names(config)
    workdir = storage.path(workdir)
    compiling.set_up(config.run)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(dict(enumerate(config.phases)), mesh, config.run.accumulate_steps)
    _check_program(config, mesh)
    with contextlib.ExitStack() as locks:
        if jax.process_index() == 0:
            locks.enter_context(folders.exclusive(workdir))
        _check_run(config, workdir)
        say(f"on {compiling.devices()}")
        start = read_start(config, init) if init else None
        if start:
            config = start.checked(config)
        data = _examples(config, workdir, examples, start)
        config = _with_vocabulary(config, data)
        if jax.process_index() == 0:
            locks.enter_context(folders.shared(data.folder))
            if Examples(data.folder).manifest != data.manifest:
                raise InputError(f"{data.folder}: was replaced while it was checked; give the command again")
        storage.make_folder(workdir)
        _check_shared(workdir)
        origin = {"init": str(init) if init else None, "embedding": start.embedding if start else {}}
        training = _training(config, data, mesh, origin)
        result = loop.train(training, workdir, mesh, start.params if start else None, profile)
        if jax.process_index() == 0:
            plot_pretraining(workdir / "metrics.jsonl", workdir / "loss.png")
            _report(config, workdir, result)
        return Result.from_loop(result, workdir)


def _check_program(config: PretrainConfig, mesh: Mesh) -> None:
    """Raises `InputError`, before hours of preparation, where the batch can't be computed in its parts, or a parameter
    can't be split over the mesh."""
    size = config.model.vocab_size or VOCABULARY_MULTIPLE
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))
    objective, settings = pretraining_setup(config)
    check_parts(objective, settings)
    model = objective.model
    sharding.param_shardings(mesh, param_shapes(model), model.logical_axes)


def _check_run(config: PretrainConfig, workdir: Path) -> None:
    """Raises `InputError` where the workdir has a run with another config."""
    with contextlib.closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        if checkpoints.latest is None:
            return
        saved = checkpoints.about(checkpoints.latest)
    current = to_dict(config)
    saved_config = config_of(saved)
    if config.model.vocab_size is None and isinstance(saved_config, PretrainConfig):
        current["model"]["vocab_size"] = saved_config.model.vocab_size
    check_same_run(saved, {"config": current, "examples": saved.get("examples")}, workdir)


def _check_shared(workdir: Path) -> None:
    """Raises `InputError` where processes see different folders: each process saves only its part there."""
    if jax.process_count() == 1:
        return
    mark = int(multihost_utils.broadcast_one_to_all(np.random.default_rng().integers(1 << 30)))
    file = workdir / f".shared-{mark}"
    if jax.process_index() == 0:
        file.touch()
    multihost_utils.sync_global_devices("the mark is set")
    seen = multihost_utils.process_allgather(np.array(file.exists()))
    if jax.process_index() == 0:
        file.unlink()
    if not seen.all():
        blind = ", ".join(map(str, np.flatnonzero(~seen)))
        raise InputError(f"{workdir}: process {blind} sees another folder; --workdir must be one that all share")


def _examples(config: PretrainConfig, workdir: Path, folder: str | Path | None, start: Start | None) -> Examples:
    """The examples in `folder` or the workdir, prepared where there are none, and checked against the config."""
    own, lengths = workdir / "examples", [phase.sequence_length for phase in config.phases]
    if folder is None and is_missing(own):
        if jax.process_count() > 1:  # They were prepared before the processes started.
            raise InputError(
                f"{own}: process {jax.process_index()} doesn't see it; --workdir must be one that all share"
            )
        data = prepare(config, own, tokenizer=start.tokenizer if start else None)
        if storage.is_remote(own):
            data.check_files(lengths)
        return data
    data = Examples(folder or own)
    data.check_files(lengths)
    for name, before, now in differences(data.manifest["config"], to_dict(config)):
        section = name.split(".")[0]
        if section == "examples" or (folder is None and section in ("corpus", "tokenizer", "seed")):
            what = f"{name} was {before!r} when they were prepared, is {now!r} now"
            raise InputError(f"{data.folder}: {what}; give it back, or prepare others in another folder")
    if folder is not None and config.tokenizer.path:
        given = tokenizer_folders.load(config.tokenizer.path, config.tokenizer)
        if tokenizers.fingerprint(given) != data.manifest["tokenizer"]:
            raise InputError(
                f"{config.tokenizer.path}: not the tokenizer that made {data.folder}; leave it out, or prepare again"
            )
    if start and data.tokenizer.to_dict() != start.tokenizer.to_dict():
        what = f"its tokenizer isn't that of {data.folder}; prepare the examples with its own"
        raise InputError(f"{start.name}: {what}")
    for phase in config.phases:
        if not len(data.split("train", phase.sequence_length)):
            raise InputError(f"{data.folder}: no training example of length {phase.sequence_length}")
    return data


def _with_vocabulary(config: PretrainConfig, data: Examples) -> PretrainConfig:
    """The config with the tokenizer's vocabulary size; JAX would clamp ids beyond the model's silently."""
    size = data.tokenizer.vocab_size
    if config.model.vocab_size is None:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))
    if config.model.vocab_size < size:
        what = f"is {config.model.vocab_size}, the tokenizer of {data.folder} has {size}"
        raise InputError(f"model.vocab_size: {what}; leave it out to take the tokenizer's")
    return config


def _training(config: PretrainConfig, data: Examples, mesh: Mesh, origin: dict) -> loop.Training:
    # TensorFlow takes seconds to import: everything that can be checked without it has been checked.
    from bert_jax.data import pipeline

    rows = functools.partial(sharding.local_rows, mesh)
    objective, settings = pretraining_setup(config)
    # Whatever is minimised, held-out text is measured by the head's own loss, so that runs can be compared.
    sums_of = steps.make_evaluation_step(
        HeadObjective(objective.model), data.unigram_log_probabilities(config.model.known_vocab_size)
    )

    def evaluation_step(program: Program) -> Callable:
        """The jitted evaluation step; made for the same program again, it isn't compiled again."""
        shardings = program.shardings["params"], program.rows
        return jax.jit(sums_of, in_shardings=shardings, out_shardings=program.everywhere)

    def evaluation(program: Program) -> loop.Evaluate:
        step_of = evaluation_step(program)

        def evaluate(params, step: int, check: Callable[[], None]) -> dict[str, float]:
            """Scores the whole held-out split, in the shape of the phase that the last step belongs to."""
            phase = phase_of(config, max(step - 1, 0))
            sums: list[dict] = []
            for batch in loop.on_device(pipeline.held_out_batches(data, config, phase, rows), mesh):
                sums.append(step_of(params, batch))
                loop.await_due(sums)
                check()
            return held_out_means(loop.add_up(sums)) if sums else {}

        return evaluate

    return loop.Training(
        name="pretrain",
        objective=objective,
        settings=settings,
        seed=config.seed,
        run=config.run,
        batches=functools.partial(pipeline.batches, data, config, rows=rows),
        ahead=functools.partial(_ahead, config, data, evaluation_step),
        evaluation=evaluation,
        score=lambda held_out: -held_out["held_out_mlm_loss"] if held_out else None,
        about={"config": to_dict(config), "examples": data.fingerprint, **origin},
        tokenizer=data.tokenizer.to_dict(),
    )


def _ahead(
    config: PretrainConfig, data: Examples, evaluation_step: Callable, program: Program, step: int
) -> Iterator[Ahead]:
    """The programs of all phases that end after a step, so that none turns out too large after days of another."""
    end, every = 0, config.run.evaluate_every
    for number, phase in enumerate(config.phases):
        start, end = max(end, step), end + phase.steps
        if end <= step:
            continue
        name = f"phase {number + 1} of {len(config.phases)}"
        tokens = f"{phase.batch_size} x {phase.sequence_length} tokens"
        batch = batch_shapes(config, phase, program.rows)
        smaller = f"make room by a smaller phases.{number}.batch_size or by mesh.fsdp"
        remedies = f"{smaller}, run.accumulate_steps, model.remat full"
        yield Ahead(f"{name}: a training step of {tokens}", program.lowered(batch), remedies)
        evaluated = end == config.total_steps or end // every > start // every
        if evaluated and len(data.split("held_out", phase.sequence_length)):
            lowered = evaluation_step(program).lower(program.state["params"], batch)
            optimizer = bytes_on_a_device(program.state["opt_state"])
            yield Ahead(f"{name}: an evaluation step of {tokens}", lowered, smaller, optimizer)


def phase_of(config: PretrainConfig, step: int) -> Phase:
    """The phase that the step (0 is the first) belongs to."""
    for phase in config.phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    raise ValueError("the step is past the last phase")


def held_out_means(sums: dict[str, float]) -> dict[str, float]:
    means = {**losses.means(sums), "unigram_loss": sums["unigram_loss"] / (sums["mlm_count"] + losses.EPSILON)}
    return {f"held_out_{name}": value for name, value in means.items()}


def _report(config: PretrainConfig, workdir: Path, result: loop.Result) -> None:
    if result.signal:
        done = f"{result.step:,} of {config.total_steps:,} steps"
        say(f"stopped after {done} and saved; the same command goes on from there")
        return
    held_out = result.scores
    say("", f"done: {result.step:,} steps")
    if held_out:
        loss, unigram = held_out["held_out_mlm_loss"], held_out["held_out_unigram_loss"]
        say(f"held-out masked-LM loss  {loss:.3f} nats, accuracy {held_out['held_out_mlm_accuracy']:.1%}")
        say(f"unigram's loss on these  {unigram:.3f} nats: the model is {unigram - loss:.3f} better")
    if "held_out_nsp_accuracy" in held_out:
        say(f"next-sentence accuracy   {held_out['held_out_nsp_accuracy']:.1%}")
    if config.corpus.source == "python-docs" and jax.process_count() == 1:
        bert = load(workdir)
        for sentence in SENTENCES:
            guesses = ", ".join(f"{guess.token} {guess.probability:.0%}" for guess in bert.fill_mask(sentence, 3)[0])
            say(f"  {sentence}  {guesses}")
    say(f"workdir      {workdir}" + (f" (best checkpoint: {result.best})" if result.best else ""))
    say(f"TensorBoard  tensorboard --logdir {workdir / 'tensorboard'}")
    say(f"plot         {workdir / 'loss.png'}")
