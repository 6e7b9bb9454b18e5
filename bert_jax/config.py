"""Every setting of bert_jax, as frozen dataclasses. No default stands anywhere else.

A file in `configs/` builds a `PretrainConfig`; the command line overrides any field of it by its path
(`--optimizer.learning-rate 3e-4`); a checkpoint carries the whole of it as JSON.
"""

from dataclasses import dataclass, field
from typing import Literal

from bert_jax import checks


class InputError(Exception):
    """Something the person gave is wrong: one line that names it and the remedy. The command exits with code 2.

    What it quotes, of files that anybody may have written, can't begin a line of its own nor tell a terminal anything.
    """

    def __init__(self, message: object = ""):
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """The text with escapes for all that isn't seen: control characters, marks of direction, halves of characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """What a library's error says, for a line of ours: its first line, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class CorpusConfig:
    """Where the text comes from. A document is a list of lines; a line is a paragraph or a sentence."""

    source: Literal["python-docs", "text", "tfds"] = "python-docs"
    """python-docs: the documentation of the running Python. text: files. tfds: a TensorFlow Datasets text data set."""
    files: tuple[str, ...] = ()
    """text: UTF-8 files or globs. Plain text with a paragraph or sentence a line, a blank line between documents; JSON
    lines (C4, OSCAR); WikiExtractor's articles. Each as it is or compressed by gzip, xz or bzip2, whatever its name."""
    dataset: str = ""
    """tfds: the data set's name, for example wikipedia/20230601.en, c4/en or lm1b."""
    split: str = "train"
    """tfds: the split to read."""
    text_field: str = "text"
    """JSON lines: the field that holds a document's text. tfds: the feature that does."""
    data_dir: str | None = None
    """tfds: where the data sets lie (None: the library's own place)."""
    clean: bool = True
    """Resolve HTML entities, drop control characters, compose Unicode (NFC)."""
    deduplicate: bool = False
    """Leave out lines that occurred before anywhere in the corpus, exactly; the corpus is read twice."""
    held_out: float = 0.02
    """Share of documents, chosen by their content, that are not trained on but measure the loss. 0: no evaluation."""


@dataclass(frozen=True)
class TokenizerConfig:
    """WordPiece (through `tokenizers`) or SentencePiece: loaded from a file, or trained on the corpus."""

    kind: Literal["wordpiece", "sentencepiece"] = "wordpiece"
    path: str | None = None
    """A vocab.txt (wordpiece), a .model (sentencepiece), or a Hugging Face folder, which says all the rest. None: the
    tokenizer of the model to start from, if any, or else trained on the training documents."""
    vocab_size: int = 8192
    """Size of a trained vocabulary, special tokens included."""
    lowercase: bool = True
    """Lower-case and strip accents (an uncased model). A SentencePiece .model brings its own normalisation."""
    training_characters: int = 50_000_000
    """A vocabulary is trained on about so many characters, from all over the training documents."""
    temperature: float = 1.0
    """A source (each of corpus.files) of n bytes is sampled by n^(1/temperature): above 1, small languages more."""


@dataclass(frozen=True)
class ExamplesConfig:
    """How documents become unmasked examples of a fixed length (paper, appendix A.2)."""

    format: Literal["sentence_pairs", "full_sentences", "packed"] = "sentence_pairs"
    """sentence_pairs: [CLS] A [SEP] B [SEP] with next-sentence labels. full_sentences: [CLS] text [SEP], the text whole
    sentences of one document, up to the length. packed: such texts share a row, each with its own [CLS], [SEP] and
    positions, none attending to another."""
    short_sequence_probability: float = 0.1
    """Share of sentence pairs built to a random shorter length, to match shorter inputs in fine-tuning."""

    word_segmenter: str | None = None
    """A function text -> words, as module:function (jieba:lcut), for whole-word masking of text without spaces. None:
    the tokenizer's words, each Chinese character one."""
    dupe_factor: int = 1
    """Times that the training documents are turned into examples, with other draws of pairs and cuts each time."""

    @property
    def sentence_pairs(self) -> bool:
        return self.format == "sentence_pairs"


@dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are predicted: drawn afresh for every batch from (seed, step), unless `static`."""

    rate: float = 0.15
    """Share of an example's tokens (special ones count, but are never chosen) to predict, up to max_predictions."""
    evaluation_rate: float = 0.15
    """The same for held-out examples, so that runs with different rates can be compared (arXiv 2202.08005)."""
    whole_word: bool = False
    """Choose whole words instead of single word pieces."""
    static: bool = False
    """An example has the same mask whenever it comes, as in the original; each copy by examples.dupe_factor its own."""
    random_tokens: Literal["ordinary", "all"] = "ordinary"
    """Random replacements never are special tokens (ordinary) or come from the whole vocabulary (all: the original)."""


@dataclass(frozen=True)
class ModelConfig:
    """The encoder, by the names of the released bert_config.json. Defaults are BERT-Base."""

    vocab_size: int | None = None
    """None: the tokenizer's."""
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: Literal["gelu", "gelu_tanh"] = "gelu"
    """gelu: by erf (the 2018 release); gelu_tanh: the tanh form (google-research/bert since February 2019)."""
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the products. Parameters, LayerNorm statistics, softmax and loss are float32 always."""
    scan_unroll: int = 1
    """Layers unrolled in each iteration of the scan over layers: more compiles slower and may run faster."""
    remat: Literal["auto", "none", "attention", "dots", "full"] = "auto"
    """What the backward pass computes again, to save memory. attention: scores and softmax. dots: all but the products
    with weights. full: whole layers, from their input. auto: dots, which on a TPU is the faster too; none on a CPU."""

    def validate(self) -> "ModelConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        c = PretrainConfig(model=self, examples=ExamplesConfig("full_sentences"))
        for name, problem in checks.pretraining_problems(c):
            if name.startswith("model."):
                raise InputError(f"{name.removeprefix('model.')}: {problem}")
        return self

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word embeddings, on every mesh, so that a checkpoint fits all. Those beyond vocab_size are 0."""
        return -(-self.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


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
    """A released size ("tiny" to "large", as in `PRESETS`), with any field changed."""
    if name not in PRESETS:
        raise InputError(f"model preset {name!r} is unknown: {checks.did_you_mean(name, PRESETS)}")
    layers, hidden = PRESETS[name]
    sizes = dict(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64, intermediate_size=4 * hidden
    )
    return ModelConfig(**{**sizes, **changes})


# What a head's outputs are, by the names in transformers; and how a head of ours says that they are values, to
# transformers and to sentence-transformers.
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
VALUE = dict(problem_type="regression", activation="identity")


@dataclass(frozen=True)
class HeadConfig:
    """What stands on the encoder, and what its outputs are called."""

    kind: Literal[
        "encoder",
        "masked_lm",
        "pretraining",
        "sequence_classification",
        "token_classification",
        "question_answering",
        "multiple_choice",
    ] = "pretraining"
    """encoder: nothing. masked_lm: scores of the vocabulary. pretraining: those, and next sentence."""
    labels: tuple[str, ...] = ()
    """Of sequence and token classification, in the order of the logits."""
    pooler: bool = True
    """encoder: whether it has the dense layer on [CLS]. The other kinds decide for themselves."""
    dropout: float | None = None
    """Before the logits of a label (None: model.hidden_dropout_prob)."""
    problem_type: Literal[PROBLEM_TYPES] | None = None
    """sequence_classification, by the name in transformers: whether one label is right, or any number of them, or the
    logits are values. None: it isn't said; then one logit is a value, and of several labels one is right."""
    activation: Literal["identity", "sigmoid", "softmax"] | None = None
    """What a cross-encoder of sentence-transformers applies to its logits (None: it doesn't say); problem_type, where
    it is said, goes first."""

    @property
    def outputs(self) -> Literal["classes", "labels", "values"]:
        """What the logits of a sequence_classification say: which class it is (softmax), of each label whether it is
        right (sigmoid), or values as they are."""
        if self.problem_type is not None:
            return dict(zip(PROBLEM_TYPES, ("classes", "labels", "values"), strict=True))[self.problem_type]
        if self.activation == "sigmoid":
            return "labels"
        return "values" if len(self.labels) == 1 else "classes"

    @property
    def unsaid(self) -> bool:
        """Whether nothing says what one output alone is: transformers trains it as a value, and shows its sigmoid."""
        one = self.kind == "sequence_classification" and len(self.labels) == 1
        return one and self.problem_type is None and self.activation is None

    def validate(self) -> "HeadConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.head_problems(self):
            raise InputError(f"{name}: {problem}")
        return self


@dataclass(frozen=True)
class EmbeddingConfig:
    """How a model's vectors of texts are made."""

    pooling: Literal["mean", "cls"] = "mean"
    """mean: of the vectors of all tokens, [CLS] and [SEP] among them. cls: that of [CLS]."""
    normalize: bool = False
    """Divide by the length."""
    max_length: int | None = None
    """Tokens that are read of a text (None: what the model reads)."""
    lowercase: bool = False
    """Before tokenizing."""
    unknown: str = ""
    """What the folder asks for and isn't done here."""
    prompts: dict[str, str] = field(default_factory=dict)
    """What can be put before a text, by name."""
    default_prompt: str | None = None
    """The name of the prompt that is put before a text where none is chosen."""
    include_prompt: bool = True
    """The mean is over the prompt's tokens too."""
    dimensions: int | None = None
    """The first numbers of a vector alone are kept, as many (None: all)."""
    similarity: str | None = None
    """How sentence-transformers compares the vectors: not done here, but written again by an export."""
    sentence_transformers: bool = False
    """The files of sentence-transformers say so, and an export writes them again."""

    def validate(self) -> "EmbeddingConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.embedding_problems(self):
            raise InputError(f"{name}: {problem}")
        return self


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW as BERT's, or LAMB (arXiv 1904.00962) as its authors have it: no layer-wise ratio of biases and LayerNorm.
    The step count of the schedule is the sum of the phases'."""

    name: Literal["adamw", "lamb"] = "adamw"
    learning_rate: float = 1e-4
    """The peak, reached at the end of the warm-up."""
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    """Applied to all but LayerNorm and biases."""
    bias_correction: bool = True
    """The original has none (its authors call that an oversight); with it, training is steadier."""
    warmup_steps: int = 10_000
    decay: Literal["from_zero", "from_warmup"] = "from_zero"
    """Linear to 0 at the last step N, after W of warm-up: (N-t)/N, the original's, which drops at W, or (N-t)/(N-W)."""
    clip_norm: float = 1.0
    """The gradient's global norm is clipped to this."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one sequence length. The original has two: 90 % of the steps at 128, 10 % at 512."""

    sequence_length: int = 128
    batch_size: int = 256
    """Examples in the global batch, over all devices and processes."""
    steps: int = 1_000_000
    max_predictions: int = 20
    """Most masked tokens in an example; the rate decides below that."""


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one -1 takes those that are left."""

    data: int = -1
    """Copies of the model, each with its share of the batch."""
    fsdp: int = 1
    """Slices of parameters and optimizer, gathered for each layer; the batch is split here too."""
    tensor: int = 1
    """Slices of heads, feed-forward and vocabulary."""


@dataclass(frozen=True)
class RunConfig:
    """How the run is watched and kept. Any of it may change when a run is resumed."""

    log_every: int = 100
    evaluate_every: int = 10_000
    evaluation_batches: int | None = None
    """Held-out batches in an evaluation (None: all)."""
    checkpoint_every: int = 10_000
    keep_last: int = 2
    keep_best: int = 1
    """Checkpoints kept for the lowest held-out loss besides the last; those saved at a step of evaluation compete."""
    accumulate_steps: int = 1
    """Parts that each batch is computed in, one after the other, when it doesn't fit in memory."""
    max_skipped_updates: int = 10
    """Stop after so many updates in a row with a gradient that isn't finite; each is skipped and counted."""
    workers: int | None = None
    """Processes that prepare examples (None: one for each core that affinity and cgroup grant)."""
    compilation_cache: str | None = None
    """A folder that keeps compiled programs for the next run (None: what JAX_COMPILATION_CACHE_DIR names, or none)."""


GLUE = ("cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli", "ax")
TASKS = (*GLUE, "classification", "regression", "squad", "ner", "srl", "swag", "multiple_choice")


@dataclass(frozen=True)
class TaskConfig:
    """What to fine-tune on: a task by its name, and where its files are."""

    name: Literal[TASKS] = "classification"
    folder: str | None = None
    """The task's official files, under their own names; GLUE's may lie in a folder of the task's name in it. None:
    GLUE's come through TensorFlow Datasets."""
    data_dir: str | None = None
    """Where the data sets of TensorFlow Datasets lie (None: the library's own place)."""
    train: str | None = None
    """A file instead of the folder's: CSV, TSV or JSONL, SQuAD's JSON, CoNLL columns."""
    dev: str | None = None
    test: str | None = None
    text_column: str = "text"
    """Of a table of one's own, as CSV or JSON lines: a name or, of files without a header, a number from 1."""
    pair_column: str | None = None
    """The second text, of pairs."""
    label_column: str = "label"
    labels: tuple[str, ...] = ()
    """classification: the classes, each as the file writes it. Without them they are those of the training file, and
    what looks like a mistake there is refused."""
    id_column: str | None = None
    """Tells rows apart in what is handed in (None: their number)."""
    train_examples: int | None = None
    """Train on so many examples, drawn at random (None: all)."""
    document_context: bool = False
    """ner: fill the input with the sentences around, of the same document."""
    query_length: int = 64
    """squad: most tokens of a question."""
    stride: int = 128
    """squad: tokens from the start of a window to that of the next."""
    n_best: int = 20
    """squad: starts and ends that are paired."""
    answer_length: int = 30
    """squad: most tokens of an answer."""
    unanswerable: bool = False
    """squad: version 2.0, questions without an answer among them."""
    null_threshold: float = 0.0
    """squad: no answer is given where the null score is more than this above the best answer's."""


@dataclass(frozen=True)
class FinetuneConfig:
    """A whole fine-tuning run."""

    seed: int = 0
    """Of everything random: the head's first weights, order, dropout."""
    task: TaskConfig = field(default_factory=TaskConfig)
    sequence_length: int = 128
    """Longer texts are cut, or read in windows."""
    batch_size: int = 32
    """Examples in the global batch, over all devices and processes."""
    evaluation_batch_size: int = 64
    epochs: float = 3.0
    warmup: float = 0.1
    """Share of the steps; optimizer.warmup_steps is set by it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the products."""
    dropout: float | None = None
    """In the encoder and before the head (None: the model's own)."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-5, decay="from_warmup"))
    mesh: MeshConfig = field(default_factory=MeshConfig)
    run: RunConfig = field(default_factory=lambda: RunConfig(log_every=10, keep_last=1))
    """Evaluated and saved after each epoch."""

    def validate(self) -> "FinetuneConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.finetuning_problems(self):
            raise InputError(f"{name}: {problem}")
        return self


@dataclass(frozen=True)
class PretrainConfig:
    """A whole pretraining run."""

    seed: int = 0
    """Of everything random: examples, their order, masks, initial weights, dropout."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    phases: tuple[Phase, ...] = (Phase(),)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def total_steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def validate(self) -> "PretrainConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.pretraining_problems(self):
            raise InputError(f"{name}: {problem}")
        return self
