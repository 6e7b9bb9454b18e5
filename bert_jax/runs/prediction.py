"""Applies a trained model to texts: what `bert-jax predict` does, in Python."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.config import InputError
from bert_jax.config.checks import did_you_mean
from bert_jax.inference import prediction
from bert_jax.inference.bert import Bert
from bert_jax.inference.loading import load

# The tasks, and the options of each.
TASKS = {
    "fill-mask": ("top",),
    "embed": ("pooling", "normalize", "prompt_name", "prompt"),
    "classify": (),
    "tag": (),
    "answer": (),
}
# The tasks that read two texts.
PAIRED = ("classify", "tag", "answer")


def predict(
    model: str | Path | Bert,
    task: str,
    texts: str | Iterable[str],
    pairs: str | Iterable[str] | None = None,
    **options: Any,
) -> Iterator[dict]:
    """What a model says of each text, as the dicts that `bert-jax predict` prints as JSON lines, in the texts' order.

    Texts are read, and predicted, some thousands at a time, in memory that doesn't grow with them: they may come from a
    generator. `Bert` has a method for each task that returns objects and arrays instead.

    Args:
      model: a workdir, a checkpoint's folder, a Hugging Face folder, or a `Bert`.
      task: "fill-mask", "embed", "classify", "tag" or "answer".
      texts: the texts; for "answer", the questions. A single string gives one dict.
      pairs: a second text for each, or one for all: for "classify" the other text of the pair, for "tag" the predicate,
        for "answer" the context.
      **options: for "fill-mask", `top`, the number of guesses (5); for "embed", `pooling`, `normalize`, `prompt_name`
        and `prompt`, as `Bert.encode` has them.

    Returns:
      An iterator over a dict for each text: `text`, with "fill-mask" `masks`, for each [MASK] the guesses with `token`
      and `probability`; with "embed" `embedding`, a list of floats; with "classify" `label` and `probabilities` from 0
      to 1; with "tag" `spans` with `type`, `text`, `start`, `end` and `probability`; with "answer" `question` instead
      of `text`, and `answer`, `start`, `end` and `probability`.

    Raises:
      InputError: there is no such task or option, or the model isn't made for it; while iterating, a text doesn't fit,
        as one without [MASK], or a text has no pair.

    Example:
      >>> for result in bert_jax.predict("runs/base", "fill-mask", ["The dog [MASK] the hill."], top=2):
      ...     print(result["text"], [sorted(guess) for guess in result["masks"][0]])
      The dog [MASK] the hill. [['probability', 'token'], ['probability', 'token']]
    """
    if task not in TASKS:
        raise InputError(f"task: is {task!r}; {did_you_mean(task, TASKS)}")
    for name in options.keys() - set(TASKS[task]):
        raise InputError(f"{name}: no option of {task}; it has {', '.join(TASKS[task]) or 'none'}")
    if pairs is not None and task not in PAIRED:
        raise InputError(f"pairs: {task} reads one text; leave them out")
    if pairs is None and task == "answer":
        raise InputError("pairs: are missing; give each question the text to look in, or one text for all")
    bert = model if isinstance(model, Bert) else load(model)
    inputs: Iterator = iter([texts] if isinstance(texts, str) else texts)
    if task in PAIRED:
        inputs = _paired(inputs, itertools.repeat(pairs) if pairs is None or isinstance(pairs, str) else iter(pairs))
    return _predicted(predictor(bert, task, **options), inputs)


def predictor(bert: Bert, task: str, second: str | None = None, **options: Any) -> prediction.Predict:
    """A function from texts to the line printed for each; `second` is the second text of those that have none."""
    match task:
        case "fill-mask":
            return prediction.fill_mask(bert, options.get("top", 5))
        case "embed":
            return prediction.embed(bert, **options)
    return getattr(prediction, task)(bert, second)


def _predicted(lines_of: prediction.Predict, inputs: Iterator) -> Iterator[dict]:
    for chunk in prediction.chunks(inputs):
        yield from map(json.loads, lines_of(chunk))


def _paired(texts: Iterator[str], pairs: Iterator[str | None]) -> Iterator[tuple[str, str | None]]:
    for number, text in enumerate(texts):
        try:
            yield text, next(pairs)
        except StopIteration:
            raise InputError(f"pairs: are {number}, and there are more texts; give each text one") from None
    if not isinstance(pairs, itertools.repeat) and next(pairs, None) is not None:
        raise InputError("pairs: are more than the texts; give each text one")
