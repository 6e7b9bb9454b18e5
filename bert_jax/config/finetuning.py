"""Settings of a fine-tuning run: the task and its files, and how long it is trained."""

from dataclasses import dataclass, field

from bert_jax.config import checks
from bert_jax.config.models import Dtype
from bert_jax.config.section import Section
from bert_jax.config.training import MeshConfig, OptimizerConfig, RunConfig
from bert_jax.files.errors import InputError

GLUE = ("cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli", "ax")


@dataclass(frozen=True)
class TaskConfig(Section):
    """What to fine-tune on: a task by its name, and where its files or columns are.

    Example:
      >>> task = bert_jax.TaskConfig("regression", train="train.csv", dev="dev.csv", label_column="stars")
      >>> task.text_column, task.label_column
      ('text', 'stars')
    """

    name: str = "classification"
    """For your own tables classification, multi_label or regression; GLUE's cola, sst-2, mrpc, sts-b, qqp, mnli, qnli,
    rte, wnli or ax; squad; ner; srl; swag; multiple_choice; or a name that a config file adds to
    bert_jax.tasks.TASKS."""
    folder: str | None = None
    """Folder with the task's official files under their original names; GLUE's may lie in a subfolder with the task's
    name. None: GLUE's come through TensorFlow Datasets."""
    data_dir: str | None = None
    """Folder with the data sets of TensorFlow Datasets (None: the library's default)."""
    train: str | None = None
    """The training file, instead of the folder's: CSV, TSV or JSONL, SQuAD's JSON, CoNLL columns."""
    dev: str | None = None
    test: str | None = None
    text_column: str = "text"
    """Column of the text in your own table (CSV, TSV or JSON lines): a name or, in files without a header, a number
    from 1."""
    pair_column: str | None = None
    """Column of the second text, for pairs of texts."""
    label_column: str = "label"
    labels: tuple[str, ...] = ()
    """classification, multi_label: the classes, or labels, each as the file writes it. Without this setting they are
    those in the training file, and what looks like a mistake there is refused. multi_label: a table without the label
    column has a column of 0 and 1 for each label."""
    label_separator: str = ","
    """multi_label: the text between two labels of a row, where its cell isn't a JSON list."""
    id_column: str | None = None
    """Column with the id of each row, for the file of predictions (None: the row's number)."""
    train_examples: int | None = None
    """Number of examples to train on, drawn at random (None: all)."""
    document_context: bool = False
    """ner: fill the input with the sentences before and after it in the same document."""
    query_length: int = 64
    """squad: the most tokens of a question."""
    stride: int = 128
    """squad: tokens from the start of one window to the start of the next."""
    n_best: int = 20
    """squad: number of the best starts, and of the best ends, that are paired into answers."""
    answer_length: int = 30
    """squad: the most tokens of an answer."""
    unanswerable: bool = False
    """squad: version 2.0, where some questions have no answer."""
    null_threshold: float = 0.0
    """squad: no answer is given where the null score exceeds the best answer's by more than this."""


@dataclass(frozen=True)
class FinetuneConfig(Section):
    """A whole fine-tuning run.

    Example:
      >>> config = bert_jax.FinetuneConfig(task=bert_jax.TaskConfig("ner"), epochs=5, batch_size=16)
      >>> config.validate().optimizer.learning_rate
      2e-05
    """

    seed: int = 0
    """Seed of everything random: the head's initial weights, the examples' order, dropout."""
    task: TaskConfig = field(default_factory=TaskConfig)
    sequence_length: int = 128
    """The most tokens of an input; longer texts are cut, or read in windows."""
    batch_size: int = 32
    """Examples in the global batch, over all devices and processes."""
    evaluation_batch_size: int = 64
    """Mean number of examples in a batch of an evaluation: batches are of about as many tokens each."""
    epochs: float = 3.0
    warmup: float = 0.1
    """Share of the steps that warm up; it sets optimizer.warmup_steps."""
    dtype: Dtype = "float32"
    """Type of the matrix products, as model.dtype of pretraining."""
    dropout: float | None = None
    """Dropout in the encoder and before the head (None: the model's own)."""
    objective: str = "head"
    """What is minimised: head, the loss of the task's own head; or a name that a config file adds to
    bert_jax.objectives.OBJECTIVES."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-5, decay="from_warmup"))
    mesh: MeshConfig = field(default_factory=MeshConfig)
    run: RunConfig = field(default_factory=lambda: RunConfig(log_every=10, keep_last=1))
    """How the run is logged and kept; it is evaluated and saved after each epoch."""

    def validate(self) -> "FinetuneConfig":
        """Returns itself; raises `InputError` naming the first field that makes no sense."""
        for name, problem in checks.finetuning_problems(self):
            raise InputError(f"{name}: {problem}")
        return self
