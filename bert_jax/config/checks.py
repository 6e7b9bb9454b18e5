"""What is wrong with a config: generators of (field, what is wrong and what to do)."""

import dataclasses
import difflib
import functools
import math
import re
import typing
from typing import Literal

# Limits far above any encoder: a larger number would take all memory or time before anything else is checked.
MOST = {
    "num_hidden_layers": 1 << 12,
    "hidden_size": 1 << 16,
    "intermediate_size": 1 << 18,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 20,
    "type_vocab_size": 1 << 16,
    "scan_unroll": 1 << 12,
}
# The same of a run's settings, by their paths, where a run has them.
MOST_OF_RUN = {
    "run.workers": 1 << 12,
    "tokenizer.vocab_size": 1 << 24,
    "examples.dupe_factor": 1 << 10,
    **dict.fromkeys(["task.query_length", "task.stride", "task.n_best", "task.answer_length"], 1 << 20),
}
# Twice the largest batch that a BERT was trained with, of 65,536 examples of 512 tokens.
MOST_TOKENS = 1 << 26


def pretraining_problems(c):
    """The problems of a `PretrainConfig`."""
    yield from _common_problems(c)
    at_least, share = functools.partial(_at_least, c), functools.partial(_share, c)
    yield from share("corpus", "held_out")
    if c.corpus.source == "text" and not c.corpus.files:
        yield "corpus.files", "names no file; give one or more, for example --corpus.files 'text/*.txt'"
    for name, source in (("files", "text"), ("dataset", "tfds")):
        if c.corpus.source == "python-docs" and getattr(c.corpus, name):
            yield f"corpus.{name}", f"isn't read where corpus.source is python-docs; add --corpus.source {source}"
    if c.corpus.source == "tfds" and not c.corpus.dataset:
        yield "corpus.dataset", "is empty; name a data set, for example wikipedia/20230601.en"
    yield from _not_addresses("corpus.files", *c.corpus.files)
    yield from _not_addresses("tokenizer.path", c.tokenizer.path)
    yield from at_least(16, "tokenizer", "vocab_size")
    yield from at_least(1, "tokenizer", "training_characters", "temperature")
    yield from share("examples", "short_sequence_probability")
    if c.examples.word_segmenter is not None and not re.fullmatch(r"[\w.]+:\w+", c.examples.word_segmenter):
        yield "examples.word_segmenter", f"is {c.examples.word_segmenter!r}, must be module:function, as jieba:lcut"
    yield from at_least(1, "examples", "dupe_factor")
    if c.examples.dupe_factor > 1 and not (c.examples.sentence_pairs or c.masking.static):
        alike = f"is {c.examples.dupe_factor}, but copies of {c.examples.format} are alike"
        yield "examples.dupe_factor", f"{alike}; leave it 1, or give each copy its own masks: --masking.static"
    yield from share("masking", "rate", "evaluation_rate")
    m = c.model
    yield from ((f"model.{name}", problem) for name, problem in model_problems(m))
    if c.examples.sentence_pairs and m.type_vocab_size < 2:
        yield "model.type_vocab_size", f"is {m.type_vocab_size}; sentence pairs need 2"
    if not c.phases:
        yield "phases", "is empty; a run has at least one phase"
    for i, phase in enumerate(c.phases):
        at = f"phases.{i}"
        yield from at_least(8, at, "sequence_length")
        yield from at_least(1, at, "batch_size", "steps", "max_predictions")
        yield from _tokens(f"{at}.batch_size", phase.batch_size, phase.sequence_length)
        if phase.sequence_length > m.max_position_embeddings:
            limit = f"model.max_position_embeddings is {m.max_position_embeddings}"
            yield f"{at}.sequence_length", f"is {phase.sequence_length} but {limit}; shorten the one or raise the other"
        if phase.max_predictions > phase.sequence_length - 2:
            yield f"{at}.max_predictions", f"is {phase.max_predictions}, more than an example's ordinary tokens"
        if phase.batch_size % c.run.accumulate_steps:
            yield (
                f"{at}.batch_size",
                f"{phase.batch_size} isn't divisible by run.accumulate_steps {c.run.accumulate_steps}",
            )
    if c.optimizer.warmup_steps >= c.total_steps:
        longest = f"the run has {c.total_steps} steps; shorten the warm-up"
        yield "optimizer.warmup_steps", f"is {c.optimizer.warmup_steps} but {longest}"


def model_problems(c):
    """The problems of a `ModelConfig`."""
    yield from type_problems(type(c), c)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
    yield from _at_least(c, 1, "", "vocab_size", *sizes, "type_vocab_size", "scan_unroll")
    yield from _at_most(c, MOST)
    yield from _share(c, "", "hidden_dropout_prob", "attention_probs_dropout_prob")
    if c.hidden_size % c.num_attention_heads:
        yield "num_attention_heads", f"{c.num_attention_heads} doesn't divide hidden_size {c.hidden_size}"


def finetuning_problems(c):
    """The problems of a `FinetuneConfig`."""
    yield from _common_problems(c)
    yield from _at_least(c, 8, "", "sequence_length")
    for name in ("batch_size", "evaluation_batch_size"):
        yield from _at_least(c, 1, "", name)
        yield from _tokens(name, getattr(c, name), c.sequence_length)
    yield from _at_least(c, 1, "task", "train_examples", "query_length", "stride", "n_best", "answer_length")
    yield from _share(c, "", "warmup", "dropout")
    for name in ("folder", "train", "dev", "test"):
        yield from _not_addresses(f"task.{name}", getattr(c.task, name))
    yield from _table_problems(c.task)
    if c.epochs <= 0:
        yield "epochs", f"is {c.epochs}, must be above 0"


def embedding_problems(c):
    """The problems of an `EmbeddingConfig`."""
    yield from type_problems(type(c), c)
    yield from _at_least(c, 2, "", "max_length")
    yield from _at_least(c, 1, "", "dimensions")
    if c.default_prompt is not None and c.default_prompt not in c.prompts:
        yield "default_prompt", f"is {c.default_prompt!r}; the prompts are {', '.join(c.prompts) or 'none'}"


def head_problems(c):
    """The problems of a `HeadConfig`."""
    yield from type_problems(type(c), c)
    if c.problem_type == "single_label_classification" and len(c.labels) == 1:
        other = "make it regression (the value itself) or multi_label_classification (its sigmoid)"
        yield "problem_type", f"is {c.problem_type}, but there is one label alone; {other}"


def _table_problems(task):
    """The problems of the settings for a person's own table."""
    if not task.label_separator:
        yield "task.label_separator", "is empty; give the text between two labels, for example ';'"
    if len(set(task.labels)) < len(task.labels) or any(label != label.strip() or not label for label in task.labels):
        yield "task.labels", f"are {', '.join(map(repr, task.labels))}; name each once, without spaces around it"
    for name in ("pair_column", "label_column"):
        if getattr(task, name) == task.text_column or task.pair_column == task.label_column:
            yield f"task.{name}", f"is {getattr(task, name)!r}, which is another column already; name its own"


def _common_problems(c):
    """The problems of settings that pretraining and fine-tuning share."""
    yield from type_problems(type(c), c)
    yield from _at_least(c, 0, "", "seed")
    if c.seed >= 1 << 31:
        yield "seed", f"is {c.seed}, must be below 2**31"
    every = ("log_every", "evaluate_every", "evaluation_batches", "checkpoint_every")
    yield from _at_least(c, 1, "run", *every, "keep_last", "accumulate_steps", "max_skipped_updates", "workers")
    yield from _at_least(c, 0, "run", "keep_best")
    yield from _at_least(c, 0, "optimizer", "learning_rate", "weight_decay", "warmup_steps")
    yield from _at_most(c, {path: most for path, most in MOST_OF_RUN.items() if hasattr(c, path.split(".")[0])})
    yield from _share(c, "optimizer", "b1", "b2")
    for name in ("eps", "clip_norm"):
        if getattr(c.optimizer, name) <= 0:
            yield f"optimizer.{name}", f"is {getattr(c.optimizer, name)}, must be above 0"
    for name in ("data", "fsdp", "tensor"):
        if getattr(c.mesh, name) < 1 and getattr(c.mesh, name) != -1:
            yield f"mesh.{name}", f"is {getattr(c.mesh, name)}, must be a number of devices, or -1 for those left"


def _not_addresses(name, *files):
    """Yields the files that are addresses elsewhere (`scheme://`)."""
    for file in files:
        if file and re.match(r"\w+://", file):
            yield name, f"{file} isn't on this machine; copy it here first"


def _at_least(c, low, section, *names):
    """Yields the fields with a value below `low`."""
    for name in names:
        value = getattr(_by_path(c, section), name)
        if value is not None and value < low:
            yield f"{section}.{name}" if section else name, f"is {value}, must be at least {low}"


def _at_most(c, most):
    """Yields the fields, by their paths, with a value above their limit in `most`."""
    for name, high in most.items():
        value = _by_path(c, name)
        if value is not None and value > high:
            yield name, f"is {value}, must be at most {high:,}"


def _tokens(name, rows, length):
    """Yields the size of a batch of more than `MOST_TOKENS` tokens."""
    if rows * length > MOST_TOKENS:
        yield name, f"is {rows}, of {length} tokens each; a batch must be of at most {MOST_TOKENS:,} tokens"


def _share(c, section, *names):
    """Yields the fields with a value outside [0, 1)."""
    for name in names:
        value = getattr(_by_path(c, section), name)
        if value is not None and not 0 <= value < 1:
            yield f"{section}.{name}".lstrip("."), f"is {value}, must be at least 0 and below 1"


def type_problems(hint, value, where: str = ""):
    """Yields values whose type isn't the field's, as a config file can hold them, and numbers that aren't finite."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint):
        for name, inner in typing.get_type_hints(hint).items():
            yield from type_problems(inner, getattr(value, name), f"{where}.{name}".lstrip("."))
    elif typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            yield where, f"is {value!r:.99}, must be a tuple, as ({value!r:.99},)"
            return
        for i, item in enumerate(value):
            yield from type_problems(typing.get_args(hint)[0], item, f"{where}.{i}")
    elif typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            yield where, f"is {value!r:.99}, must be a dict"
            return
        for name, item in value.items():
            yield from type_problems(typing.get_args(hint)[1], item, f"{where}.{name}")
    elif choices := _choices(hint):
        if value not in choices:
            yield where, f"is {value!r:.99}; {did_you_mean(str(value)[:99], [c for c in choices if c])}"
    else:
        allowed = typing.get_args(hint) or (hint,)
        whole_for_real = float in allowed and type(value) is int
        if type(value) not in allowed and not whole_for_real:
            names = " or ".join("None" if t is type(None) else t.__name__ for t in allowed)
            yield where, f"is {value!r:.99}, must be {names}"
        elif type(value) is float and not math.isfinite(value):
            yield where, f"is {value}, must be a finite number"
        elif type(value) is int and abs(value) >= 1 << 63:
            yield where, "is a number of more than 63 bits; choose a smaller one"


def _choices(hint) -> tuple:
    """The values that a Literal allows, and None if that is allowed too; empty for any other hint."""
    for option in (hint, *typing.get_args(hint)):
        if typing.get_origin(option) is Literal:
            return typing.get_args(option) if option is hint else (*typing.get_args(option), None)
    return ()


def _by_path(config, path: str):
    for name in filter(None, path.split(".")):
        config = config[int(name)] if name.isdigit() else getattr(config, name)
    return config


def did_you_mean(name: str, names) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
