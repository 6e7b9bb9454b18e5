"""`bert-jax predict`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import bert_jax
from bert_jax.config import InputError
from bert_jax.files.printable import harmless


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bert-jax predict", description="Uses a trained model on texts.")
    tasks = parser.add_subparsers(dest="task", required=True)
    fill = tasks.add_parser("fill-mask", help="the most probable tokens for each [MASK]")
    fill.add_argument("--top", type=int, default=5, help="guesses for each [MASK]")
    embed = tasks.add_parser("embed", help="a vector for each text")
    default = "default: what the model's folder says, else"
    pooling = f"mean of all tokens' vectors, or [CLS]'s ({default} mean)"
    normalize = f"scale vectors to length 1 ({default} no)"
    embed.add_argument("--pooling", choices=["mean", "cls"], help=pooling)
    embed.add_argument("--normalize", action=argparse.BooleanOptionalAction, help=normalize)
    embed.add_argument("--prompt-name", metavar="NAME", help="name of the model's prompt to put before each text")
    embed.add_argument("--prompt", metavar="TEXT", help="text to put before each text instead")
    tab = "without it, each line may have its own, after a tab"
    classify = tasks.add_parser("classify", help="the class, or the value, of each text or pair")
    classify.add_argument("--pair", dest="second", metavar="TEXT", help=f"second text for all texts; {tab}")
    tag = tasks.add_parser("tag", help="the named entities, or other spans, in each text")
    tag.add_argument("--predicate", dest="second", metavar="WORD", help=f"semantic roles: whose to tag; {tab}")
    answer = tasks.add_parser("answer", help="the answer to each question")
    answer.add_argument("--context", dest="second", metavar="TEXT", help=f"text that contains the answers; {tab}")
    for task in (fill, embed, classify, tag, answer):
        task.add_argument("--model", required=True, help="a workdir, a checkpoint's folder or a Hugging Face folder")
        task.add_argument("--input", type=Path, metavar="FILE", help="UTF-8, a text on each line")
        task.add_argument("--output", type=Path, metavar="FILE", help="JSON lines; without it, standard output")
        task.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")
        task.add_argument("text", nargs="*", help="texts; without them and --input, standard input")
    options = parser.parse_args(arguments)
    _check_predict(options)
    from bert_jax.devices import compiling
    from bert_jax.inference import prediction
    from bert_jax.runs.prediction import TASKS, predictor

    compiling.begin()
    # Texts are checked before the model is loaded and anything is written.
    checks: dict[str, Callable[[str], object]] = {
        "fill-mask": prediction.needs_mask,
        "answer": lambda line: prediction.needs_context(line, options.second),
    }
    check = checks.get(options.task, lambda _: None)
    for text in options.text:
        check(text)
    total = prediction.count(options.input, check) if options.input else len(options.text)
    bert = bert_jax.load(options.model)
    if options.task == "fill-mask" and options.text and not options.output and sys.stdout.isatty():
        _print_filled(bert, options.text, options.top)
        return
    # Checks that need the model.
    checks |= {"fill-mask": bert.masked_ids, "tag": lambda line: prediction.check_tag(bert, line, options.second)}
    check = checks.get(options.task, check)
    for text in options.text:
        check(text)
    texts = options.text or prediction.texts(options.input, check)
    how = {name: getattr(options, name) for name in TASKS[options.task]}
    predict = predictor(bert, options.task, getattr(options, "second", None), **how)
    prediction.run(predict, texts, options.output, total or None, progress=not options.text)


def _check_predict(options: argparse.Namespace) -> None:
    for text in (*options.text, *(getattr(options, name, None) or "" for name in ("second", "prompt"))):
        try:
            text.encode()
        except UnicodeEncodeError:  # Python has replaced undecodable bytes by surrogates.
            raise InputError(f"{text!r}: not UTF-8; convert it") from None
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
    """Prints the guesses for a person to read."""
    for text, masks in zip(texts, bert.fill_mask(texts, top), strict=True):
        print(harmless(text))
        for guesses in masks:
            print("  " + harmless(", ".join(f"{guess.token} {guess.probability:.1%}" for guess in guesses)))
