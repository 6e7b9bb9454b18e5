"""The command line. Each command imports what it needs when it runs, so that help comes at once."""

import importlib
import os
import signal
import sys
import traceback

import bert_jax
from bert_jax.cluster.signals import Ending, Stopped
from bert_jax.config import InputError
from bert_jax.files import contents, storage
from bert_jax.files.errors import BAD_INPUT
from bert_jax.files.printable import say

HELP = """\
usage: bert-jax COMMAND [options]

BERT for JAX: pretrain, fine-tune, evaluate, predict, and move weights in and out.

commands:
  prepare   text -> tokenizer and examples on disk
  pretrain  train a model on them; prepares what is missing, resumes by itself
  finetune  train a pretrained model on a task
  evaluate  a task's scores, or a pretrained model's loss on any text
  predict   fill-mask, embed, classify, tag, answer: use a trained model on texts
  import    a Hugging Face or google-research folder -> a folder of bert_jax
  export    a model -> a folder of Hugging Face, TensorFlow 1, ONNX or StableHLO
  plan      what a run needs and how long it takes on TPUs that aren't here
  bench     train, finetune, encode, prepare, pipeline: measured against another library, in alternating rounds

bert-jax COMMAND --help lists a command's options; every setting of the config is one of them.
"""


# Each command's module and function.
COMMANDS = {
    "prepare": "prepare:run",
    "pretrain": "pretrain:run",
    "finetune": "finetune:run",
    "evaluate": "evaluate:run",
    "predict": "predict:run",
    "import": "weights:import_model",
    "export": "weights:export_model",
    "plan": "plan:run",
    "bench": "bench:run",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 2 for bad input, 75 for what passes by itself, 128 + n when signal n
    stopped it."""
    try:
        code = _main(arguments)
    except Exception as error:
        _leave(1, error)
        raise
    if code:
        _leave(code)
    return code


def _leave(code: int, error: Exception | None = None) -> None:
    """Ends a process that failed in a run of several, which JAX would let wait for the others first."""
    from bert_jax.cluster import supervisor

    if supervisor.role() == supervisor.PLACE and code not in supervisor.GOOD:
        if error:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        say(*HELP.splitlines())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        say(bert_jax.__version__)
        return 0
    if not sys.stderr.isatty():  # In a log, a line of progress every ten seconds is enough.
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    ending = Ending()
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"no command {arguments[0]!r}; there are {', '.join(COMMANDS)} (bert-jax --help)")
        with ending, storage.errors_in_one_line():
            module, function = COMMANDS[arguments[0]].split(":")
            run = getattr(importlib.import_module(f"bert_jax.cli.{module}"), function)
            return run(arguments[1:]) or 0
    except InputError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:  # The reader of our output, such as head, has closed it.
        sys.stdout = None
        return 141
    except OSError as error:
        # A full disk or a folder that can't be written, which the person can correct. Anything else is a bug, and shows
        # its traceback.
        if error.errno not in contents.REMEDIES:
            raise
        return _fail(contents.what_to_do(error))
    except Stopped as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        say("", "bert-jax: interrupted", file=sys.stderr)
        return 128 + (ending.number or signal.SIGINT)


def _fail(message: str, code: int = BAD_INPUT) -> int:
    say(f"bert-jax: {message}", file=sys.stderr)
    return code
