"""Applies fine-tuned heads to texts as strings: classes, tagged spans, answers."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Regex, pre_tokenizers

from bert_jax.config import FinetuneConfig, HeadConfig, InputError, TaskConfig
from bert_jax.convert.origin import FinetuningRun, Origin
from bert_jax.inference.engine import Engine
from bert_jax.models import kind_of
from bert_jax.tasks import multi_label, squad, squad_files, tagging
from bert_jax.tasks.spans import spans, standard

# The warning for a model with one output whose meaning its folder doesn't say.
UNSAID = (
    "the model has one output, and no problem_type that says what it is: it is given as a regression's value; for "
    'the probability of yes, write "problem_type": "multi_label_classification" into its config.json'
)

# Tokens of a window, for a model that doesn't say with how many it was trained: SQuAD's number.
WINDOW = 384

# Splits a text as BERT's tokenizer does before it looks for pieces: at spaces, punctuation, and Chinese characters.
WORDS = pre_tokenizers.Sequence(
    [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated")]
)


@dataclass(frozen=True)
class Classified:
    """What a classifier says of a text; it depends on the kind of its outputs (`HeadConfig.outputs`)."""

    label: str | float | list[str] | list[float]
    """The most probable class; of labels that may apply together, those with a probability of at least a half; of a
    regression, its value or values."""
    probabilities: dict[str, float]
    """The probability of every label, in the order of the model's logits. Those of classes sum to 1, those of labels
    that may apply together don't. Of a regression with several values, the values; with a single value, nothing."""


@dataclass(frozen=True)
class Tagged:
    """A span of a text, as a named entity or the argument of a predicate."""

    type: str
    """The type of the span, as PER of B-PER and I-PER; of labels without B- and I-, as NOUN, the label."""
    text: str
    start: int
    """The position of its first character in the text."""
    end: int
    """The position after its last character."""
    probability: float
    """The probability of its least probable tag."""


@dataclass(frozen=True)
class Answered:
    """A part of the context. A model that was trained on questions without an answer may give none: ""."""

    text: str
    start: int | None
    """The position of its first character in the context; None where there is no answer."""
    end: int | None
    """The position after its last character."""
    probability: float
    """The answer's probability among the best candidates."""
    null_odds: float | None = None
    """How much higher "no answer" scores than the best answer; None for a model that always answers."""


def run_of(origin: Origin) -> FinetuneConfig:
    """The run that trained a model; for models from elsewhere, the defaults."""
    return origin.config if isinstance(origin, FinetuningRun) else FinetuneConfig()


def classified(head: HeadConfig, logits: list[np.ndarray]) -> list[Classified]:
    """The classes of texts by their logits, [labels] each. Raises `InputError` where two labels have the same name."""
    if repeated := [label for label, count in Counter(head.labels).items() if count > 1]:
        remedy = "name each for itself in id2label of the model's config.json"
        raise InputError(f"the model has more than one class {repeated[0]!r}, so they can't be told apart; {remedy}")
    if kind_of(head).unsaid(head):
        warnings.warn(UNSAID, stacklevel=3)
    return [_classified(head, values.astype(np.float64)) for values in logits]


def _classified(head: HeadConfig, logits: np.ndarray) -> Classified:
    def named(values: np.ndarray) -> dict[str, float]:
        return dict(zip(head.labels, values.tolist(), strict=True))

    match head.outputs:
        case "values":
            return Classified(logits.item(), {}) if len(logits) == 1 else Classified(logits.tolist(), named(logits))
        case "labels":
            probabilities = named(multi_label.probabilities(logits))
            right = [label for label, value in probabilities.items() if value >= multi_label.THRESHOLD]
            return Classified(right, probabilities)
    odds = np.exp(logits - logits.max())
    probabilities = named(odds / odds.sum())
    return Classified(max(probabilities, key=probabilities.__getitem__), probabilities)


def tag(
    engine: Engine, run: FinetuneConfig, texts: list[str], predicates: Sequence[str | None] | None = None
) -> list[list[Tagged]]:
    """The spans of each text's words, which are the tokenizer's; of semantic roles, those of one predicate."""
    examples, offsets = [], []
    for number, (text, predicate) in enumerate(zip(texts, predicates or [None] * len(texts), strict=True)):
        predicate_index = predicate_of(run, text, predicate)
        words, word_offsets = _words(text)
        examples.append(tagging.Example(words, None, f"text {number + 1}", number, words, predicate=predicate_index))
        offsets.append(word_offsets)
    labels = engine.model.head.labels
    task = tagging.from_config(TaskConfig("srl" if run.task.name == "srl" else "ner"), labels)
    length = min(run.sequence_length, engine.longest)
    features = [f for f in task.features(examples, engine.tokenizer, length, training=False) if f.positions]
    predictions = task.predict(examples, features, engine.logits(features))
    meaning = standard(labels)
    return [_tagged(*result, meaning) for result in zip(texts, offsets, predictions, strict=True)]


def predicate_of(run: FinetuneConfig, text: str, predicate: str | None) -> int | None:
    """The number of the predicate's word in the text. Raises `InputError` if it isn't there, missing, or not taken."""
    if run.task.name != "srl":
        if predicate is not None:
            raise InputError(f"{predicate!r}: only a model of semantic roles (task srl) takes predicates; leave it out")
        return None
    if predicate is None:
        raise InputError(f"{text!r}: this model tags the roles of a predicate; give one, a word that is in the text")
    words, _ = _words(text)
    if predicate not in words:
        raise InputError(f"{text!r}: {predicate!r} isn't a word of it; give the predicate as it is written there")
    return words.index(predicate)


def _words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The words of a text, and where each starts and ends, in characters."""
    offsets = [offset for _, offset in WORDS.pre_tokenize_str(text)]
    return [text[slice(*offset)] for offset in offsets], offsets


def _tagged(
    text: str, offsets: list[tuple[int, int]], prediction: tagging.Tagged, meaning: dict[str, str]
) -> list[Tagged]:
    result = []
    for kind, first, after in spans([meaning[tag] for tag in prediction.tags]):
        start, end = offsets[first][0], offsets[after - 1][1]
        result.append(Tagged(kind, text[start:end], start, end, min(prediction.probabilities[first:after])))
    return result


def answer(engine: Engine, run: FinetuneConfig, questions: list[str], contexts: list[str]) -> list[Answered]:
    """Answers by the rules of SQuAD, in windows of the length that the model was trained with."""
    trained = run.task.name == "squad"
    length = min(run.sequence_length if trained else WINDOW, engine.longest)
    query_length = min(run.task.query_length, length // 2)
    settings = dataclasses.replace(run.task, query_length=query_length, folder=None, train=None, dev=None, test=None)
    task = squad.Squad(settings)
    examples = [squad_files.example(*pair) for pair in zip(questions, contexts, strict=True)]
    features = task.features(examples, engine.tokenizer, length, training=False)
    predictions = task.predict(examples, features, engine.logits(features))
    answers = []
    for prediction in predictions:
        best = prediction.answer
        start, end = best.span or (None, None)
        answers.append(Answered(best.text, start, end, best.probability, prediction.null_odds))
    return answers
