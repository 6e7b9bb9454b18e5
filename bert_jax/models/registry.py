"""The known architectures and kinds of heads, by name. To have another, add it to these dicts."""

from bert_jax.config import HeadConfig, InputError, ModelConfig
from bert_jax.config.checks import did_you_mean
from bert_jax.models.architecture import Architecture
from bert_jax.models.attention import check_backend
from bert_jax.models.bert import BERT
from bert_jax.models.heads.alone import Alone
from bert_jax.models.heads.base import Head
from bert_jax.models.heads.masked_lm import MaskedLM
from bert_jax.models.heads.multiple_choice import MultipleChoice
from bert_jax.models.heads.pretraining import Pretraining
from bert_jax.models.heads.question_answering import QuestionAnswering
from bert_jax.models.heads.sequence_classification import SequenceClassification
from bert_jax.models.heads.token_classification import TokenClassification
from bert_jax.models.roberta import ROBERTA

ARCHITECTURES: dict[str, Architecture] = {
    BERT.name: BERT,
    ROBERTA.name: ROBERTA,
}

# If nothing names the head of a folder, its kind is the first one whose parameters the folder has.
HEADS: dict[str, Head] = {
    SequenceClassification.kind: SequenceClassification(),
    TokenClassification.kind: TokenClassification(),
    Pretraining.kind: Pretraining(),
    MaskedLM.kind: MaskedLM(),
    QuestionAnswering.kind: QuestionAnswering(),
    MultipleChoice.kind: MultipleChoice(),
    Alone.kind: Alone(),
}


def architecture_of(config: ModelConfig) -> Architecture:
    """The architecture that the config names. Raises `InputError` if there is none of that name."""
    if config.architecture not in ARCHITECTURES:
        problem = did_you_mean(config.architecture, ARCHITECTURES)
        raise InputError(f"model.architecture: is {config.architecture!r}; {problem}")
    return ARCHITECTURES[config.architecture]


def kind_of(head: HeadConfig) -> Head:
    """The head of that kind, for architectures without their own. Raises `InputError` if the kind is unknown."""
    if head.kind not in HEADS:
        raise InputError(f"no kind of head is called {head.kind!r}; {did_you_mean(head.kind, HEADS)}")
    return HEADS[head.kind]


def head_of(config: ModelConfig, head: HeadConfig) -> Head:
    """The kind of head in this architecture, which may have its own."""
    return architecture_of(config).heads.get(head.kind, kind_of(head))


def heads_of(architecture: Architecture) -> dict[str, Head]:
    """The heads of an architecture, by kind."""
    return {
        kind: architecture.heads.get(kind, head) for kind, head in HEADS.items() if kind not in architecture.without
    }


def check(config: ModelConfig, head: HeadConfig) -> None:
    """Raises `InputError` if no `Model` can be made of the config and the head."""
    architecture = architecture_of(config)
    check_backend(config)
    kind_of(head)
    if head.kind in architecture.without:
        kinds = ", ".join(heads_of(architecture))
        raise InputError(f"{architecture.name} has no head of the kind {head.kind}; it has {kinds}")
    for name, problem in architecture.problems(config):
        raise InputError(f"model.{name}: {problem}")
