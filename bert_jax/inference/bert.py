"""A trained model in use: `bert = bert_jax.load("runs/tiny"); bert.fill_mask("Paris is the [MASK] of France.")`."""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from tqdm import tqdm

from bert_jax.config import EmbeddingConfig, InputError
from bert_jax.convert import pretrained
from bert_jax.data import packing
from bert_jax.data.tokenizers import MASK, PAD
from bert_jax.devices.compiling import jitted
from bert_jax.files import storage
from bert_jax.inference import labelling
from bert_jax.inference.embedding import Embedder
from bert_jax.inference.labelling import Answered, Classified, Tagged
from bert_jax.models import HEADS, make_model
from bert_jax.tasks.base import Feature
from bert_jax.tasks.classification import model_input

Texts = str | Sequence[str]
Pooling = Literal["mean", "cls"]

# Lengths are padded to a multiple of this, and rows to a power of two, so that few shapes are compiled.
LENGTH_STEP = 32
# Labels that `repr` shows; of more, their number.
LISTED = 8
# Places in a batch of texts whose masks are filled.
PLACES = 2048


@dataclasses.dataclass(frozen=True)
class Filled:
    """A guess for one [MASK]."""

    token: str
    probability: float


class Bert:
    """A pretrained model with its tokenizer, as `load` gives it.

    Texts go in as one string, which is a batch of one, or as a list of them.

    Attributes:
      config: the encoder, a `ModelConfig`.
      head: what stands on it, with its `kind` and `labels`.
      tokenizer: turns texts into ids.
      params: the weights, a tree of dicts of float32 arrays, on the first device.
      run: the fine-tuning that made it, a `FinetuneConfig`, or the defaults of one.
      embedding: how `encode` makes vectors of texts.

    Example:
      >>> bert_jax.load("runs/base")
      Bert(kind='pretraining', layers=1, width=32, vocabulary=48)
      >>> bert_jax.load("runs/reviews")
      Bert(kind='sequence_classification', layers=1, width=32, vocabulary=48, labels=('bad', 'good'))
    """

    def __init__(self, found: pretrained.Pretrained):
        self.config, self.head, self.tokenizer = found.model, found.head, found.tokenizer
        self.params = jax.device_put(found.params)
        self.run = labelling.run_of(found.origin)
        self.embedding = found.embedding
        self._module = make_model(found.model, found.head)
        self._kind = self._module.kind

    def __repr__(self) -> str:
        c, labels = self.config, self.head.labels
        sizes = f"layers={c.num_hidden_layers}, width={c.hidden_size}, vocabulary={c.vocab_size}"
        shown = f", labels={labels if len(labels) <= LISTED else len(labels)}" if labels else ""
        return f"Bert(kind={self.head.kind!r}, {sizes}{shown})"

    # Texts in: where a string is expected, one alone is a batch of one.

    def tokenize(self, texts: Texts, pairs: Texts | None = None, length: int | None = None) -> dict[str, np.ndarray]:
        """Texts, or pairs of texts, as ids.

        [MASK] in a text is the token; other special pieces are read as text. A text of more than `length` tokens is cut
        at its end (or its beginning, where the model's folder has truncation_side left), of a pair the longer one, and
        both alike where they are equally long.

        Args:
          texts: the texts, or the first ones of pairs.
          pairs: the second text of each.
          length: tokens in a row (None: those of the longest text; what is longer than the model reads is cut with a
            warning).

        Returns:
          `input_ids`, `token_type_ids` and `attention_mask`, int32 [texts, length] each.

        Raises:
          InputError: the length isn't one that the model reads, there are more texts than pairs, or one is no string.

        Example:
          >>> inputs = bert_jax.load("runs/base").tokenize(["the dog", "the old king"])
          >>> inputs["attention_mask"].tolist()
          [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
        """
        ids, types = self._ids(texts, pairs, length)
        rows = self._rows(ids, types, length or max(map(len, ids), default=0))
        return dict(zip(("input_ids", "token_type_ids", "attention_mask"), rows, strict=True))

    def _rows(self, ids: list[list[int]], types: list[list[int]], length: int) -> np.ndarray:
        """int32 [3, texts, length]: ids, token types and attention mask."""
        rows = np.zeros((3, len(ids), length), np.int32)
        rows[0] = self.tokenizer.special_ids[PAD]
        for row, (i, t) in enumerate(zip(ids, types, strict=True)):
            rows[0, row, : len(i)], rows[1, row, : len(i)], rows[2, row, : len(i)] = i, t, 1
        return rows

    def _ids(
        self, texts: Texts, pairs: Texts | None, length: int | None, limit: int | None = None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids and token types of each text, with [CLS] and [SEP]; without a length, what is longer than the `limit`, or
        than the model reads, is cut with a warning."""
        longest = limit or self.config.max_position_embeddings
        least = self.tokenizer.layout.special_tokens(1 if pairs is None else 2)
        if length is not None and not least <= length <= longest:
            raise InputError(f"length: is {length}, must be from {least} to the {longest} that the model reads")
        columns = _columns(texts, pairs)
        parts = list(zip(*(self._bare_ids(column) for column in columns), strict=True))
        if length is None and any(sum(map(len, part)) + least > longest for part in parts):
            warnings.warn(f"texts of more than {longest} tokens are cut: the model reads no more", stacklevel=3)
        made = [model_input(self.tokenizer, part, length or longest) for part in parts]
        return [ids for ids, _ in made], [types for _, types in made]

    def _bare_ids(self, texts: list[str]) -> list[list[int]]:
        ids = self.tokenizer.encode([text if MASK not in text else "" for text in texts])
        return [self.tokenizer.encode_masked(t) if MASK in t else i for t, i in zip(texts, ids, strict=True)]

    # Arrays in.

    def __call__(self, texts: Texts, pairs: Texts | None = None):
        """What `apply` returns for the texts, or pairs of texts: `apply(**tokenize(texts, pairs))`.

        Args:
          texts: the texts, or the first ones of pairs.
          pairs: the second text of each.

        Returns:
          The outputs of the model's head, float32, as `apply` has them.

        Raises:
          InputError: as by `tokenize`.

        Example:
          >>> bert = bert_jax.load("runs/reviews")
          >>> bert(["great", "awful"]).shape
          (2, 2)
        """
        return self.apply(**self.tokenize(texts, pairs))

    def apply(self, input_ids, token_type_ids=None, attention_mask=None, masked_lm_positions=None):
        """The outputs of the model's head for arrays of ids. Shapes are padded inside, so that few are compiled.

        Args:
          input_ids: int [batch, sequence]; of multiple choice, as all inputs then, [batch, choices, sequence].
          token_type_ids: the same shape (None: all are 0).
          attention_mask: the same shape, 0 for padding (None: nothing is padding).
          masked_lm_positions: int [batch, masks], where the scores of the vocabulary are wanted (None: everywhere).

        Returns:
          What the class of the head's kind says (`bert_jax.models.HEADS[bert.head.kind]`), float32: logits [batch,
          labels] of a classifier, scores [batch, masks or sequence, vocabulary] of a masked-LM head, several outputs as
          a tuple. An encoder without pooler gives None for its pooled vectors.

        Raises:
          InputError: an id that the model has no row for, or a length that it doesn't read.

        Example:
          >>> bert = bert_jax.load("runs/base")
          >>> scores, next_sentence = bert.apply(**bert.tokenize(["the dog", "the old king"]))
          >>> scores.shape, next_sentence.shape
          ((2, 5, 48), (2, 2))
        """
        inputs = self._checked(input_ids, token_type_ids, attention_mask)
        batch, *_, length = inputs[0].shape
        items = length
        if self._kind.predicts:
            if masked_lm_positions is None:
                masked_lm_positions = np.tile(np.arange(length), (batch, 1))
            inputs = (*inputs, np.asarray(masked_lm_positions, np.int32))
            items = inputs[3].shape[1]
        outputs = self._apply(*self._padded(inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        cut = []
        for value, output in zip(outputs, self._kind.outputs, strict=True):
            if value is not None:
                value = value[:batch] if output.each == "text" else value[:batch, :items]
            cut.append(value[..., : self.config.vocab_size] if output.each == "prediction" else value)
        return cut[0] if len(cut) == 1 else tuple(cut)

    def _checked(self, input_ids, token_type_ids, attention_mask) -> tuple[np.ndarray, ...]:
        input_ids = np.asarray(input_ids, np.int32)
        types = np.zeros_like(input_ids) if token_type_ids is None else np.asarray(token_type_ids, np.int32)
        mask = np.ones_like(input_ids) if attention_mask is None else np.asarray(attention_mask, np.int32)
        dimensions = 3 if self._kind.choices else 2
        if input_ids.ndim != dimensions or not input_ids.shape == types.shape == mask.shape:
            raise InputError(
                f"inputs are {input_ids.shape}, {types.shape}, {mask.shape}; alike, {dimensions} axes each"
            )
        if input_ids.shape[-1] > (longest := self.config.max_position_embeddings):
            raise InputError(f"input_ids: {input_ids.shape[-1]} tokens, the model reads {longest}")
        sizes = self.config.vocab_size, self.config.type_vocab_size
        for name, array, size in zip(("input_ids", "token_type_ids"), (input_ids, types), sizes, strict=True):
            if array.size and not 0 <= array.min() <= array.max() < size:
                raise InputError(f"{name}: from {array.min()} to {array.max()}, the model has 0 to {size - 1}")
        return input_ids, types, mask

    def _padded(self, inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """With rows and tokens of padding, in few shapes; masked positions up to a power of two."""
        padded = []
        for i, array in enumerate(inputs):
            longest = self.config.max_position_embeddings
            length = min(-(-array.shape[-1] // LENGTH_STEP) * LENGTH_STEP, longest)
            length = packing.power_of_two(max(array.shape[1], 1), longest) if i == 3 else length
            shape = (packing.power_of_two(max(len(array), 1), 1 << 30), *array.shape[1:-1], length)
            padded.append(np.pad(array, [(0, to - size) for to, size in zip(shape, array.shape, strict=True)]))
        return padded

    def _apply(self, *inputs: np.ndarray):
        return self._applied(inputs[0].shape[-1], self.params, *inputs)

    @functools.cached_property
    def _applied(self):
        return jitted(lambda params, *inputs: self._module.apply({"params": params}, *inputs))

    # What is done with them.

    def encode(
        self,
        texts: Texts,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> np.ndarray:
        """A vector for each text.

        What isn't given is as the files of sentence-transformers in the model's folder say, as is where texts are cut
        and how many numbers are kept; without such files vectors are the "mean", not normalised, and texts are read up
        to the model's length.

        Texts are sorted by length and put together into rows, each text seeing itself alone, and rows into batches. A
        long list compiles two or three shapes; on a processor there are 20 at most, for a model that reads 512 tokens
        (`packing.rows_of`).

        Args:
          texts: the texts.
          pooling: "mean", of all tokens' vectors with those of [CLS] and [SEP], or "cls".
          normalize: divides each vector by its length.
          batch_tokens: places in a batch (None: 1,024 on a processor, 32,768 elsewhere).
          progress: shows a bar on standard error.
          prompt_name: the name of the model's own prompt that is put before each text.
          prompt: what is put before each text instead.

        Returns:
          float32 [texts, hidden], in the texts' order.

        Raises:
          InputError: the model's folder asks for what isn't done here, until a pooling is chosen; or there is no such
            prompt.

        Example:
          >>> vectors = bert_jax.load("runs/base").encode(["the dog", "the old king"], normalize=True)
          >>> vectors.shape
          (2, 32)
          >>> (vectors @ vectors.T).diagonal().round(4).tolist()
          [1.0, 1.0]
        """
        settings = self._embedding_settings(pooling)
        longest = min(settings.max_length or self.config.max_position_embeddings, self.config.max_position_embeddings)
        prompt = self._prompt(prompt_name, prompt)
        texts = [prompt + text for text in _listed(texts)]
        if settings.lowercase:
            prompt, texts = prompt.lower(), [text.lower() for text in texts]
        ids, _ = self._ids(texts, None, longest)
        # [CLS] is left out together with the prompt, and at least [SEP] stays.
        skipped = 0 if settings.include_prompt or not prompt else 1 + len(self._bare_ids([prompt])[0])
        skipped = min(skipped, longest - 1)
        with tqdm(total=len(texts), unit=" texts", disable=not progress) as bar:
            vectors = self._embedder(ids, longest, settings.pooling == "mean", skipped, batch_tokens, bar)
        if settings.normalize and normalize is not False:
            vectors = _of_length_1(vectors)
        vectors = vectors[:, : settings.dimensions]
        return _of_length_1(vectors) if normalize else vectors

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        prompts = self.embedding.prompts
        if name is not None and prompt is not None:
            raise InputError("give prompt or prompt_name, not both")
        if name is not None and name not in prompts:
            raise InputError(f"prompt_name: is {name!r}; the model's prompts are {', '.join(prompts) or 'none'}")
        name = self.embedding.default_prompt if name is None else name
        return prompts.get(name, "") if prompt is None else prompt

    def _embedding_settings(self, pooling: Pooling | None) -> EmbeddingConfig:
        settings = self.embedding
        if settings.unknown and pooling is None:
            other = f"the model's vectors are made by {settings.unknown}, which encode doesn't do"
            raise InputError(f'{other}; choose pooling="mean" or pooling="cls"')
        pooling = settings.pooling if pooling is None else pooling
        if pooling not in ("mean", "cls"):
            raise InputError(f"pooling: is {pooling!r}, must be mean or cls")
        return dataclasses.replace(settings, pooling=pooling)

    @functools.cached_property
    def _embedder(self) -> Embedder:
        return Embedder(self.config, self.params)

    def fill_mask(self, texts: Texts, top: int = 5) -> list[list[Filled]] | list[list[list[Filled]]]:
        """The most probable tokens for each [MASK] in a text.

        Args:
          texts: one text or more, each with one [MASK] or more.
          top: the number of guesses for each.

        Returns:
          Of each [MASK] of the text a list of `Filled`, `token` and `probability` from 0 to 1, the most probable first;
          of a list of texts, a list of these.

        Raises:
          InputError: a text has no [MASK] or is longer than the model reads; or the model doesn't score tokens.

        Example:
          >>> (guesses,) = bert_jax.load("runs/base").fill_mask("The [MASK] crosses the hill.", top=3)
          >>> len(guesses), guesses[0].probability >= guesses[1].probability
          (3, True)
        """
        self._must_be_for("fill_mask")
        listed = _listed(texts)
        ids = [self.masked_ids(text) for text in listed]
        filled: list[list[list[Filled]]] = [[] for _ in listed]
        for chosen in _batches([len(i) for i in ids]):
            for number, guesses in zip(chosen, self._fill([ids[n] for n in chosen], top), strict=True):
                filled[number] = guesses
        return filled[0] if isinstance(texts, str) else filled

    def classify(self, texts: Texts, pairs: Texts | None = None) -> Classified | list[Classified]:
        """The class, the labels that are right, or the value of a regression, of each text or pair of texts.

        What is longer than the model reads is cut with a warning.

        Args:
          texts: the texts, or the first ones of pairs, where the model was trained on these.
          pairs: the second text of each.

        Returns:
          A `Classified`, `label` and `probabilities` by label from 0 to 1; of a list of texts, a list of these.

        Raises:
          InputError: the model is no classifier of texts, or two of its classes have one name.

        Example:
          >>> found = bert_jax.load("runs/reviews").classify("great")
          >>> found.label in ("bad", "good"), round(sum(found.probabilities.values()), 4)
          (True, 1.0)
        """
        self._must_be_for("classify")
        # A cross-encoder's folder says where pairs are cut.
        limit = self.embedding.max_length if self.embedding.sentence_transformers else None
        ids, types = self._ids(texts, pairs, None, limit)
        features = [Feature(*inputs, None, 0) for inputs in zip(ids, types, strict=True)]
        found = labelling.classified(self.head, self.logits_of(features))
        return found[0] if isinstance(texts, str) else found

    def tag(self, texts: Texts, predicates: Texts | None = None) -> list[Tagged] | list[list[Tagged]]:
        """The spans that the tags of a text's words make, as named entities. A text may have any length.

        Args:
          texts: the texts.
          predicates: a word of each text, whose roles a model of semantic roles finds.

        Returns:
          A list of `Tagged`, `type`, `text`, `start` and `end` (characters of the text) and `probability`, in their
          order; of a list of texts, a list of these.

        Raises:
          InputError: the model tags no words; or it needs a predicate, or takes none, or that is no word of the text.

        Example:
          >>> text = "The old king crosses the river."
          >>> spans = bert_jax.load("runs/ner").tag(text)
          >>> all(text[span.start : span.end] == span.text for span in spans)
          True
        """
        self._must_be_for("tag")
        found = labelling.tag(self, *_columns(texts, predicates))
        return found[0] if isinstance(texts, str) else found

    def answer(self, questions: Texts, contexts: Texts) -> Answered | list[Answered]:
        """The part of a context, of any length, that answers a question.

        Args:
          questions: the questions.
          contexts: a text for each, to look in.

        Returns:
          An `Answered`, `text`, `start` and `end` (characters of the context) and `probability`; of lists, a list of
          these. A model that knows questions without an answer may give the text "".

        Raises:
          InputError: the model answers no questions, or a question or context is empty.

        Example:
          >>> context = "The old king crosses the river."
          >>> found = bert_jax.load("runs/squad").answer("Who crosses the river?", context)
          >>> context[found.start : found.end] == found.text
          True
        """
        self._must_be_for("answer")
        found = labelling.answer(self, *_columns(questions, contexts))
        return found[0] if isinstance(questions, str) else found

    def logits_of(self, features: list[Feature]) -> list[np.ndarray]:
        """The head's logits of a task's features (`bert_jax.tasks`), those of like length computed together.

        Args:
          features: ids and token types of each input.

        Returns:
          An array for each, float32, without padding: [labels], [tokens, labels] or [tokens, 2].

        Raises:
          InputError: a feature has an id that the model has no row for, or is longer than the model reads.

        Example:
          >>> from bert_jax.tasks.base import Feature
          >>> bert = bert_jax.load("runs/reviews")
          >>> ids = bert.tokenize("great")["input_ids"][0].tolist()
          >>> [logits.shape for logits in bert.logits_of([Feature(ids, [0] * len(ids), label=None, example=0)])]
          [(2,)]
        """
        found: list = [None] * len(features)
        for chosen in _batches([len(feature.input_ids) for feature in features]):
            ids, types = zip(*((features[n].input_ids, features[n].token_type_ids) for n in chosen), strict=True)
            logits = np.asarray(self._apply(*self._padded(self._checked(*self._rows(ids, types, max(map(len, ids)))))))
            for row, n in enumerate(chosen):
                found[n] = logits[row, : len(features[n].input_ids)] if logits.ndim == 3 else logits[row]
        return found

    def _must_be_for(self, use: str) -> None:
        if self._kind.use != use:
            kinds = " or ".join(kind for kind, head in HEADS.items() if head.use == use)
            raise InputError(f"needs a model of kind {kinds}; this is one of {self.head.kind}")

    def masked_ids(self, text: str) -> list[int]:
        """The ids of a text whose masks can be filled.

        Args:
          text: has one [MASK] or more.

        Returns:
          The ids, with [CLS] and [SEP].

        Raises:
          InputError: the text has no [MASK], or is longer than the model reads.

        Example:
          >>> bert = bert_jax.load("runs/base")
          >>> bert.tokenizer.decode(bert.masked_ids("the [MASK]")[1:-1])
          'the [MASK]'
        """
        if MASK not in text:
            raise InputError(f"{text!r}: holds no {MASK}")
        ids, _ = model_input(self.tokenizer, (self.tokenizer.encode_masked(text),), 1 << 30)
        if len(ids) > (longest := self.config.max_position_embeddings):
            raise InputError(f"{text[:40]!r}...: {len(ids)} tokens, the model reads {longest}")
        return ids

    def _fill(self, ids: list[list[int]], top: int) -> Iterator[list[list[Filled]]]:
        """The guesses for each [MASK] of each text of a batch."""
        mask_id = self.tokenizer.special_ids[MASK]
        positions = [[at for at, i in enumerate(text) if i == mask_id] for text in ids]
        inputs = self._rows(ids, [[0] * len(text) for text in ids], max(map(len, ids)))
        masked = np.zeros((len(ids), max(map(len, positions))), np.int32)
        for row, at in enumerate(positions):
            masked[row, : len(at)] = at
        logits = self._apply(*self._padded((*inputs, masked)))
        logits = logits[0] if isinstance(logits, tuple) else logits
        pieces = self.tokenizer.pieces()  # Some models have more rows than their tokenizer has pieces.
        probabilities, best = map(np.asarray, _top(logits[..., : len(pieces)], min(top, len(pieces))))
        for row, at in enumerate(positions):
            guesses = [zip(best[row, n], probabilities[row, n], strict=True) for n in range(len(at))]
            yield [[Filled(pieces[i], float(p)) for i, p in one] for one in guesses]


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnums=1)
def _top(logits, top: int):
    return jax.lax.top_k(jax.nn.softmax(logits), top)


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """The numbers of the texts, those of like length together, `PLACES` places or one text at a time."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        rows = max(PLACES // (-(-lengths[order[start]] // LENGTH_STEP) * LENGTH_STEP), 1)
        yield order[start : start + rows]
        start += rows


def _columns(texts: Texts, seconds: Texts | None) -> list[list[str]]:
    """Lists of the texts and, where there are any, of what goes with each."""
    columns = [_listed(column) for column in (texts, seconds) if column is not None]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"{len(columns[0])} texts but {len(columns[1])} to go with them; give each text one")
    return columns


def _listed(texts: Texts) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {number}: is of type {type(text).__name__}, must be a string")
    return texts


@storage.errors_in_one_line()
def load(model: str | Path) -> Bert:
    """A model in a folder, whoever made it.

    Args:
      model: a workdir (of a fine-tuning run its best checkpoint, of pretraining its last), a checkpoint's folder, or a
        folder of Hugging Face or google-research; a path, or an address in a bucket (gs://).

    Returns:
      The model as a `Bert`, on the first device.

    Raises:
      InputError: there is no model, or what is there isn't whole; the line names what is missing.

    Example:
      >>> bert = bert_jax.load("runs/base")
      >>> bert.config.hidden_size
      32
    """
    return Bert(pretrained.read(model))
