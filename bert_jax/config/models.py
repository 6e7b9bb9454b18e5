"""Settings of a model: the encoder, its head, and how it makes vectors of texts."""

from dataclasses import dataclass, field
from typing import Any, Literal

from bert_jax.config import checks
from bert_jax.config.section import Section
from bert_jax.files.errors import InputError

Remat = Literal["auto", "none", "attention", "dots", "full"]
HiddenAct = Literal["gelu", "gelu_tanh"]
Dtype = Literal["float32", "bfloat16", "bfloat16_products"]


@dataclass(frozen=True)
class ModelConfig(Section):
    """The encoder, with the field names of the released bert_config.json. The defaults are BERT-Base.

    Example:
      >>> bert_jax.ModelConfig(hidden_size=256, num_attention_heads=4).num_hidden_layers
      12
    """

    architecture: str = "bert"
    """bert or roberta."""
    vocab_size: int | None = None
    """None: the tokenizer's."""
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    """The most tokens that the model reads."""
    position_offset: int = 0
    """Unused rows of the position embeddings before the row of the first token: 2 in RoBERTa."""
    type_vocab_size: int = 2
    hidden_act: HiddenAct = "gelu"
    """gelu: by erf (the 2018 release); gelu_tanh: the tanh form (google-research/bert since February 2019)."""
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    dtype: Dtype = "float32"
    """Type of activations and matrix products. Parameters, LayerNorm statistics, softmax and loss are always float32.
    bfloat16_products: activations are too, and converted for each product; on a CPU, bfloat16 is that, if the CPU has
    instructions for it, else float32."""
    scan_unroll: int = 1
    """Layers unrolled in each iteration of the scan over layers: more compiles slower and may run faster."""
    remat: Remat = "auto"
    """What the backward pass recomputes, to save memory. attention: scores and softmax. dots: all but the products
    with weights. full: whole layers, from their input. auto: dots, which on a TPU is also faster; none on a CPU."""
    attention: str = "auto"
    """The program that computes attention in training. plain: XLA, everywhere. tpu_fused: one kernel, on TPUs, that
    keeps scores and probabilities on the chip. auto: tpu_fused on TPUs, else plain. They give the same results, with
    the same dropout. A model that is read, to fine-tune or to use it, has auto."""

    def validate(self) -> "ModelConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.model_problems(self):
            raise InputError(f"{name}: {problem}")
        return self

    @property
    def activation_dtype(self) -> str:
        return "float32" if self.dtype == "bfloat16_products" else self.dtype

    @property
    def known_vocab_size(self) -> int:
        """`vocab_size`; raises `InputError` where it is None, so that the model can't be made yet."""
        if self.vocab_size is None:
            raise InputError("model.vocab_size: isn't known yet; give it the size of the tokenizer's vocabulary")
        return self.vocab_size

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word embeddings, on every mesh, so that a checkpoint fits all. Those beyond vocab_size are 0."""
        return -(-self.known_vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


# Any `mesh.tensor` that divides this can split the vocabulary, and any tensor x fsdp its bias. A TPU's vector registers
# are 128 wide.
VOCABULARY_MULTIPLE = 256

# Layers and width of the released models; heads are 64 wide, the feed-forward layer is four times the hidden size.
PRESETS = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}


def model_preset(name: str, **changes) -> ModelConfig:
    """The model of a released size.

    Args:
      name: "tiny", "mini", "small", "medium", "base" or "large".
      **changes: fields of `ModelConfig` with other values.

    Returns:
      The `ModelConfig`.

    Raises:
      InputError: there is no such size.

    Example:
      >>> model = bert_jax.model_preset("tiny", max_position_embeddings=128)
      >>> model.num_hidden_layers, model.hidden_size, model.num_attention_heads
      (2, 128, 2)
    """
    if name not in PRESETS:
        raise InputError(f"model preset {name!r} is unknown: {checks.did_you_mean(name, PRESETS)}")
    layers, hidden = PRESETS[name]
    sizes = dict(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64, intermediate_size=4 * hidden
    )
    return ModelConfig(**{**sizes, **changes})


# What a head's outputs are, by the names in transformers; and the fields that say that they are values, for
# transformers and for sentence-transformers.
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Activation = Literal["identity", "sigmoid", "softmax"]
Outputs = Literal["classes", "labels", "values"]
OUTPUTS: dict[ProblemType, Outputs] = {
    "single_label_classification": "classes",
    "multi_label_classification": "labels",
    "regression": "values",
}
VALUE: dict[str, Any] = dict(problem_type="regression", activation="identity")


@dataclass(frozen=True)
class HeadConfig(Section):
    """The head on the encoder, and the names of its outputs."""

    kind: str
    """One of `bert_jax.models.HEADS`."""
    labels: tuple[str, ...] = ()
    """The labels in the outputs' order, for kinds with an output for each label."""
    pooler: bool = True
    """Whether an encoder without a head has the dense layer on [CLS]. The other kinds decide for themselves."""
    dropout: float | None = None
    """Dropout before the labels' logits (None: model.hidden_dropout_prob)."""
    problem_type: ProblemType | None = None
    """For a classifier of texts, by the name in transformers: whether one label is right, any number of labels is, or
    the logits are values. None: not said; then a single logit is a value, and one of several labels is right."""
    activation: Activation | None = None
    """The function that a cross-encoder of sentence-transformers applies to its logits (None: not said); problem_type,
    if said, has precedence."""

    @property
    def outputs(self) -> Outputs:
        """What the logits of a classifier of texts are: scores of classes, one of which is right (softmax), scores of
        labels, each right or not (sigmoid), or plain values."""
        if self.problem_type is not None:
            return OUTPUTS[self.problem_type]
        if self.activation == "sigmoid":
            return "labels"
        return "values" if len(self.labels) == 1 else "classes"

    def validate(self) -> "HeadConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.head_problems(self):
            raise InputError(f"{name}: {problem}")
        return self


@dataclass(frozen=True)
class EmbeddingConfig(Section):
    """How a model makes vectors of texts."""

    pooling: Literal["mean", "cls"] = "mean"
    """mean: the mean of all tokens' vectors, [CLS] and [SEP] included. cls: the vector of [CLS]."""
    normalize: bool = False
    """Whether a vector is divided by its length."""
    max_length: int | None = None
    """The most tokens that are read of a text (None: as many as the model reads)."""
    lowercase: bool = False
    """Whether texts are lower-cased before tokenizing."""
    unknown: str = ""
    """A step that the model's folder asks for and bert_jax can't do; empty if there is none."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Prompts that can be put before a text, by name."""
    default_prompt: str | None = None
    """The name of the prompt that is used where none is chosen."""
    include_prompt: bool = True
    """Whether the mean includes the prompt's tokens."""
    dimensions: int | None = None
    """How many of a vector's first numbers are kept (None: all)."""
    similarity: str | None = None
    """How sentence-transformers compares the vectors; bert_jax doesn't use it, but exports it again."""
    sentence_transformers: bool = False
    """Whether the settings come from files of sentence-transformers, which an export then writes again."""

    def validate(self) -> "EmbeddingConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.embedding_problems(self):
            raise InputError(f"{name}: {problem}")
        return self
