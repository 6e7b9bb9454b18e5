"""Settings of a pretraining run: corpus, tokenizer, examples, masking, phases."""

from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config import checks
from bert_jax.config.models import ModelConfig
from bert_jax.config.section import Section
from bert_jax.config.training import MeshConfig, OptimizerConfig, RunConfig
from bert_jax.files.errors import InputError


@dataclass(frozen=True)
class CorpusConfig(Section):
    """Where the text comes from. A document is a list of lines; a line is a paragraph or a sentence.

    Example:
      >>> bert_jax.CorpusConfig(source="text", files=("text/*.txt",)).held_out
      0.02
    """

    source: Literal["python-docs", "text", "tfds"] = "python-docs"
    """python-docs: the documentation of the running Python. text: files. tfds: a TensorFlow Datasets text data set."""
    files: tuple[str, ...] = ()
    """text: UTF-8 files or globs. Plain text with a paragraph or sentence a line, a blank line between documents; JSON
    lines (C4, OSCAR); WikiExtractor's articles. Each plain or compressed by gzip, xz or bzip2, whatever its name."""
    dataset: str = ""
    """tfds: the data set's name, for example wikipedia/20230601.en, c4/en or lm1b."""
    split: str = "train"
    """tfds: the split to read."""
    text_field: str = "text"
    """JSON lines: the field that holds a document's text. tfds: the feature that holds it."""
    data_dir: str | None = None
    """tfds: folder with the data sets (None: the library's default)."""
    clean: bool = True
    """Resolve HTML entities, drop control characters, compose Unicode (NFC)."""
    deduplicate: bool = False
    """Leave out each line that is equal to an earlier one anywhere in the corpus; the corpus is read twice."""
    held_out: float = 0.02
    """Share of documents, chosen by their content, that aren't trained on but evaluated. 0: no evaluation."""


@dataclass(frozen=True)
class TokenizerConfig(Section):
    """WordPiece (through `tokenizers`) or SentencePiece: loaded from a file, or trained on the corpus.

    Example:
      >>> bert_jax.TokenizerConfig("sentencepiece", vocab_size=32000).lowercase
      True
    """

    kind: Literal["wordpiece", "sentencepiece"] = "wordpiece"
    path: str | None = None
    """A vocab.txt (wordpiece), a .model (sentencepiece), or a Hugging Face folder, which says all the rest. None: the
    tokenizer of the model to start from, if any, or else trained on the training documents."""
    vocab_size: int = 8192
    """Size of a trained vocabulary, special tokens included."""
    lowercase: bool = True
    """Lower-case and strip accents (an uncased model). A SentencePiece .model brings its own normalisation."""
    training_characters: int = 50_000_000
    """Number of characters, about, that a vocabulary is trained on, from all over the training documents."""
    temperature: float = 1.0
    """A source (each of corpus.files) of n bytes is sampled in proportion to n^(1/temperature): above 1, small
    languages have a larger share."""


@dataclass(frozen=True)
class ExamplesConfig(Section):
    """How documents become unmasked examples of a fixed length (BERT paper, appendix A.2).

    Example:
      >>> bert_jax.ExamplesConfig("packed").sentence_pairs
      False
    """

    format: Literal["sentence_pairs", "full_sentences", "packed"] = "sentence_pairs"
    """sentence_pairs: [CLS] A [SEP] B [SEP] with next-sentence labels. full_sentences: [CLS] text [SEP], where the text
    is whole sentences of one document, up to the length. packed: several such texts share a row, each with its own
    [CLS], [SEP] and positions, and none attends to another."""
    short_sequence_probability: float = 0.1
    """Share of sentence pairs built to a random shorter length, to match shorter inputs in fine-tuning."""

    word_segmenter: str | None = None
    """A function from a text to its words, as module:function (jieba:lcut), for whole-word masking of text without
    spaces. None: the tokenizer's words, where each Chinese character is a word."""
    dupe_factor: int = 1
    """Number of times that the documents are turned into examples, each time with new random pairs and cuts."""

    @property
    def sentence_pairs(self) -> bool:
        return self.format == "sentence_pairs"


@dataclass(frozen=True)
class MaskingConfig(Section):
    """Which tokens are predicted: drawn afresh for every batch from (seed, step), unless `static`.

    Example:
      >>> bert_jax.MaskingConfig(whole_word=True).rate
      0.15
    """

    rate: float = 0.15
    """Share of an example's tokens (special ones count, but are never chosen) to predict, up to max_predictions."""
    evaluation_rate: float = 0.15
    """The rate for held-out examples, so that runs with different rates can be compared (arXiv 2202.08005)."""
    whole_word: bool = False
    """Choose whole words instead of single word pieces."""
    static: bool = False
    """An example has the same mask in every epoch, as in the original; each copy (examples.dupe_factor) its own."""
    random_tokens: Literal["ordinary", "all"] = "ordinary"
    """ordinary: random replacements are never special tokens. all: they come from the whole vocabulary, as in the
    original."""


@dataclass(frozen=True)
class Phase(Section):
    """A stretch of training at one sequence length. The original has two: 90 % of the steps at 128, 10 % at 512.

    Example:
      >>> phases = bert_jax.Phase(128, steps=900_000), bert_jax.Phase(512, steps=100_000, max_predictions=77)
      >>> bert_jax.PretrainConfig(phases=phases).total_steps
      1000000
    """

    sequence_length: int = 128
    batch_size: int = 256
    """Examples in the global batch, over all devices and processes."""
    steps: int = 1_000_000
    max_predictions: int = 20
    """The most masked tokens in an example; below that, the rate decides."""


@dataclass(frozen=True)
class PretrainConfig(Section):
    """A whole pretraining run.

    Example:
      >>> config = bert_jax.PretrainConfig(seed=1, model=bert_jax.model_preset("small"))
      >>> config.validate().model.hidden_size
      512
    """

    seed: int = 0
    """Seed of everything random: examples, their order, masks, initial weights, dropout."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: str = "head"
    """What is minimised: head, the loss of the model's own head, masked words and next sentences; or a name that a
    config file adds to bert_jax.objectives.OBJECTIVES."""
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
