"""Fine-tuned heads on texts as a person has them: classes, tagged spans, answers."""

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

# Of a model with one output, as a folder of transformers can leave it.
UNSAID = (
    "the model has one output, and no problem_type that says what it is: it is given as it is, as of a regression; for "
    'the probability of yes, write "problem_type": "multi_label_classification" into its config.json'
)

# Tokens of a window, of a model that doesn't say with how many it was trained: SQuAD's.
WINDOW = 384

# As BERT's tokenizer parts a text before it looks for pieces: at spaces, punctuation, and Chinese characters.
WORDS = pre_tokenizers.Sequence(
    [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated")]
)


@dataclass(frozen=True)
class Classified:
    """What a model says of a text, by what its outputs are (`HeadConfig.outputs`)."""

    label: str | float | list[str] | list[float]
    """The most probable class; of a model with any number of labels, those with a probability of at least a half; the
    value of a regression, or its values."""
    probabilities: dict[str, float]
    """Of every label, in the order of the model's logits: those of classes sum up to 1, those of labels are each their
    own. Of a regression with several values, these; with one alone, nothing."""


@dataclass(frozen=True)
class Tagged:
    """A span of a text, as a named entity or the argument of a predicate."""

    type: str
    """Of labels without B- and I-, as NOUN, the label."""
    text: str
    start: int
    """Its first character in the text, and the one behind its last."""
    end: int
    probability: float
    """That of its least probable tag."""


@dataclass(frozen=True)
class Answered:
    """A part of the context, or, of a model that knows questions without an answer, none: ""."""

    text: str
    start: int | None
    """Its first character in the context, and the one behind its last; None where there is no answer."""
    end: int | None
    probability: float
    """Among the best."""
    null_odds: float | None = None
    """How much higher "no answer" scores than the best one; None of a model that has always an answer."""


def run_of(origin: Origin) -> FinetuneConfig:
    """The run that trained a model; for models from elsewhere, the defaults."""
    return origin.config if isinstance(origin, FinetuningRun) else FinetuneConfig()


def classified(head: HeadConfig, logits: list[np.ndarray]) -> list[Classified]:
    """Logits are [labels] each. Raises `InputError` where two labels have one name."""
    if repeated := [label for label, count in Counter(head.labels).items() if count > 1]:
        remedy = "name each for itself in id2label of the model's config.json"
        raise InputError(f"the model has more than one class {repeated[0]!r}, so they can't be told apart; {remedy}")
    if kind_of(head).unsaid(head):
        warnings.warn(UNSAID, stacklevel=3)
    return [_classified(head, one.astype(np.float64)) for one in logits]


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
    """Words as the tokenizer finds them. Of semantic roles, those of one predicate, a word of the text."""
    examples, found = [], []
    for number, (text, predicate) in enumerate(zip(texts, predicates or [None] * len(texts), strict=True)):
        at = predicate_of(run, text, predicate)
        words, places = _words(text)
        examples.append(tagging.Example(words, None, f"text {number + 1}", number, words, predicate=at))
        found.append(places)
    labels = engine.model.head.labels
    task = tagging.from_config(TaskConfig("srl" if run.task.name == "srl" else "ner"), labels)
    length = min(run.sequence_length, engine.longest)
    features = [f for f in task.features(examples, engine.tokenizer, length, training=False) if f.positions]
    predictions = task.predict(examples, features, engine.logits(features))
    meaning = standard(labels)
    return [_tagged(*one, meaning) for one in zip(texts, found, predictions, strict=True)]


def predicate_of(run: FinetuneConfig, text: str, predicate: str | None) -> int | None:
    """Which word of the text it is. Raises `InputError` where it is none, or the model needs one, or takes none."""
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
    """Its words, and the characters of each."""
    places = [place for _, place in WORDS.pre_tokenize_str(text)]
    return [text[slice(*place)] for place in places], places


def _tagged(
    text: str, places: list[tuple[int, int]], prediction: tagging.Tagged, meaning: dict[str, str]
) -> list[Tagged]:
    result = []
    for kind, first, behind in spans([meaning[tag] for tag in prediction.tags]):
        start, end = places[first][0], places[behind - 1][1]
        result.append(Tagged(kind, text[start:end], start, end, min(prediction.probabilities[first:behind])))
    return result


def answer(engine: Engine, run: FinetuneConfig, questions: list[str], contexts: list[str]) -> list[Answered]:
    """By the rules of SQuAD, in windows of the length that the model was trained with."""
    trained = run.task.name == "squad"
    length = min(run.sequence_length if trained else WINDOW, engine.longest)
    query_length = min(run.task.query_length, length // 2)
    settings = dataclasses.replace(run.task, query_length=query_length, folder=None, train=None, dev=None, test=None)
    task = squad.Squad(settings)
    examples = [squad_files.example(*one) for one in zip(questions, contexts, strict=True)]
    features = task.features(examples, engine.tokenizer, length, training=False)
    predictions = task.predict(examples, features, engine.logits(features))
    answers = []
    for found in predictions:
        start, end = found.answer.span or (None, None)
        answers.append(Answered(found.answer.text, start, end, found.answer.probability, found.null_odds))
    return answers
