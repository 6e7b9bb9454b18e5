"""A trained model in use: `bert = bert_jax.load("runs/tiny"); bert.fill_mask("Paris is the [MASK] of France.")`."""

import dataclasses
from collections.abc import Sequence
from typing import overload

import jax
import numpy as np
from tqdm import tqdm

from bert_jax.config import InputError, MeshConfig
from bert_jax.config.models import Dtype
from bert_jax.convert import pretrained
from bert_jax.data import packing
from bert_jax.data.tokenizers import PAD
from bert_jax.devices import compiling, sharding
from bert_jax.inference import embedding, filling, labelling
from bert_jax.inference import texts as text_features
from bert_jax.inference.embedding import Pooling
from bert_jax.inference.engine import Engine, check_positions, integers
from bert_jax.inference.filling import Filled
from bert_jax.inference.labelling import Answered, Classified, Tagged
from bert_jax.inference.texts import Texts
from bert_jax.models import HEADS, Head, make_model
from bert_jax.tasks.base import Feature

# The most labels that `repr` shows; of more than these it gives the number.
LISTED = 8


class Bert:
    """A pretrained model with its tokenizer, as `load` gives it.

    Texts go in as one string, which is a batch of one, or as a list of them.

    Attributes:
      config: the encoder, a `ModelConfig`.
      head: the head on the encoder, a `HeadConfig` with its `kind` and `labels`.
      tokenizer: turns texts into ids.
      params: the weights, a tree of dicts of arrays on the mesh: float32, but in the `dtype` the layers' matrices.
      run: the fine-tuning run that made the model, a `FinetuneConfig`, or its defaults.
      embedding: how `encode` makes vectors of texts.

    Example:
      >>> bert_jax.load("runs/base")
      Bert(kind='pretraining', layers=1, width=32, vocabulary=48)
    """

    def __init__(self, saved: pretrained.Pretrained, mesh: MeshConfig | None = None, dtype: Dtype | None = None):
        self.config = dataclasses.replace(saved.model, dtype=dtype or saved.model.dtype)
        self.head, self.tokenizer = saved.head, saved.tokenizer
        self.run, self.embedding = labelling.run_of(saved.origin), saved.embedding
        model = make_model(self.config, saved.head)
        devices = sharding.make_mesh(mesh or MeshConfig(data=1), None if mesh else jax.local_devices()[:1])
        self._engine = Engine.with_params(model, saved.params, devices, saved.tokenizer)
        self._kind: Head = model.kind

    @property
    def params(self):
        return self._engine.params

    def __repr__(self) -> str:
        c, labels = self.config, self.head.labels
        sizes = f"layers={c.num_hidden_layers}, width={c.hidden_size}, vocabulary={c.vocab_size}"
        shown = f", labels={labels if len(labels) <= LISTED else len(labels)}" if labels else ""
        return f"Bert(kind={self.head.kind!r}, {sizes}{shown})"

    # Texts in: a single string is a batch of one.

    def tokenize(self, texts: Texts, pairs: Texts | None = None, length: int | None = None) -> dict[str, np.ndarray]:
        """Texts, or pairs of texts, as ids.

        [MASK] in a text is the mask token; other special tokens are read as text. A text longer than `length` tokens is
        cut at its end (or its beginning, where the model's folder has truncation_side left); in a pair, the longer text
        is cut, or both where they are equally long.

        Args:
          texts: the texts, or the first ones of pairs.
          pairs: the second text of each.
          length: tokens in a row (None: those of the longest text; what is longer than the model reads is cut with a
            warning).

        Returns:
          `input_ids`, `token_type_ids` and `attention_mask`, int32 [texts, length] each.

        Raises:
          InputError: the model can't read this length, texts and pairs differ in number, or one isn't a string.

        Example:
          >>> inputs = bert_jax.load("runs/base").tokenize(["the dog", "the old king"])
          >>> inputs["attention_mask"].tolist()
          [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
        """
        features = text_features.features(self.tokenizer, self._engine.longest, texts, pairs, length)
        lengths = packing.lengths_of(features)
        placements = list(packing.placed([[text] for text in range(len(features))], lengths))
        pad_id = self.tokenizer.special_ids[PAD]
        rows = packing.fill(features, placements, len(features), length or max(lengths, default=0), pad_id)
        return {name: rows[name] for name in ("input_ids", "token_type_ids", "attention_mask")}

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
          input_ids: int [batch, sequence]; for multiple choice all inputs are [batch, choices, sequence].
          token_type_ids: the same shape (None: all are 0).
          attention_mask: the same shape, 0 for padding (None: nothing is padding).
          masked_lm_positions: int [batch, masks], where the scores of the vocabulary are wanted (None: everywhere).

        Returns:
          The outputs that the class of the head's kind describes (`bert_jax.models.HEADS[bert.head.kind]`), float32:
          logits [batch, labels] of a classifier, scores [batch, masks or sequence, vocabulary] of a masked-LM head; a
          tuple if there are several. An encoder without pooler gives None for its pooled vectors.

        Raises:
          InputError: an id that the model has no row for, or a length that it doesn't read.

        Example:
          >>> bert = bert_jax.load("runs/base")
          >>> scores, next_sentence = bert.apply(**bert.tokenize(["the dog", "the old king"]))
          >>> scores.shape, next_sentence.shape
          ((2, 5, 48), (2, 2))
        """
        ids, types, mask = self._checked(input_ids, token_type_ids, attention_mask)
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        batch, *_, length = ids.shape
        if self._kind.predicts:
            if masked_lm_positions is None:
                masked_lm_positions = np.tile(np.arange(length), (batch, 1))
            positions = integers("masked_lm_positions", masked_lm_positions)
            check_positions(positions, batch, length)
            inputs["masked_lm_positions"] = positions.astype(np.int32)
        sizes = {"token": length, "prediction": inputs.get("masked_lm_positions", ids).shape[-1]}
        outputs = self._engine.apply(inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        cut = []
        for value, output in zip(outputs, self._kind.outputs, strict=True):
            if value is not None:
                value = value[:batch] if output.each == "text" else value[:batch, : sizes[output.each]]
            cut.append(value[..., : self.config.vocab_size] if output.each == "prediction" else value)
        return cut[0] if len(cut) == 1 else tuple(cut)

    def _checked(self, input_ids, token_type_ids, attention_mask) -> tuple[np.ndarray, ...]:
        input_ids = integers("input_ids", input_ids)
        types = np.zeros_like(input_ids) if token_type_ids is None else integers("token_type_ids", token_type_ids)
        mask = np.ones_like(input_ids) if attention_mask is None else integers("attention_mask", attention_mask)
        dimensions = 3 if self._kind.choices else 2
        if input_ids.ndim != dimensions or not input_ids.shape == types.shape == mask.shape:
            raise InputError(
                f"inputs are {input_ids.shape}, {types.shape}, {mask.shape}; they must be alike, of {dimensions} axes"
            )
        if input_ids.shape[-1] > (longest := self._engine.longest):
            raise InputError(f"input_ids: {input_ids.shape[-1]} tokens, the model reads {longest}")
        self._engine.check_ids(input_ids, types)
        return input_ids.astype(np.int32), types.astype(np.int32), mask.astype(np.int32)

    # What a model is used for.

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

        Defaults, the length to which texts are cut and the number of dimensions come from the files of
        sentence-transformers in the model's folder; without such files vectors are the "mean", not normalised, and
        texts are read up to the model's length.

        Texts are sorted by length and packed into rows, where each sees only itself, and rows into batches. A long
        list compiles two or three shapes, on a CPU 20 at most for a model that reads 512 tokens (`packing.rows_of`).

        Args:
          texts: the texts.
          pooling: "mean", of all tokens' vectors with those of [CLS] and [SEP], or "cls".
          normalize: divides each vector by its length.
          batch_tokens: positions in a batch (None: 1,024 on a CPU, 32,768 elsewhere).
          progress: shows a bar on standard error.
          prompt_name: the name of the model's own prompt that is put before each text.
          prompt: what is put before each text instead of a named prompt.

        Returns:
          float32 [texts, hidden], in the texts' order.

        Raises:
          InputError: the model's folder asks for something unsupported, and no pooling is given; or there is no such
            prompt.

        Example:
          >>> vectors = bert_jax.load("runs/base").encode(["the dog", "the old king"], normalize=True)
          >>> vectors.shape
          (2, 32)
          >>> (vectors @ vectors.T).diagonal().round(4).tolist()
          [1.0, 1.0]
        """
        settings = embedding.with_pooling(self.embedding, pooling)
        prompt = embedding.choose_prompt(settings, prompt_name, prompt)
        texts = text_features.listed(texts)
        with tqdm(total=len(texts), unit=" texts", disable=not progress) as bar, compiling.shown_in(bar):
            vectors = embedding.encode(self._engine, settings, texts, prompt, batch_tokens, bar.update)
        if settings.normalize and normalize is not False:
            vectors = embedding.normalized(vectors)
        vectors = vectors[:, : settings.dimensions]
        return embedding.normalized(vectors) if normalize else vectors

    # A string is a sequence of strings, too: for a string, the first of the two types is returned.

    @overload
    def fill_mask(self, texts: str, top: int = 5) -> list[list[Filled]]: ...  # type: ignore[overload-overlap]

    @overload
    def fill_mask(self, texts: Sequence[str], top: int = 5) -> list[list[list[Filled]]]: ...

    def fill_mask(self, texts: Texts, top: int = 5) -> list[list[Filled]] | list[list[list[Filled]]]:
        """The most probable tokens for each [MASK] in a text.

        Args:
          texts: one text or more, each with one [MASK] or more.
          top: the number of guesses for each.

        Returns:
          For each [MASK] of the text a list of `Filled`, with `token` and `probability` from 0 to 1, the most probable
          first; for a list of texts, a list of these.

        Raises:
          InputError: a text has no [MASK] or is longer than the model reads; or the model doesn't score tokens.

        Example:
          >>> (guesses,) = bert_jax.load("runs/base").fill_mask("The [MASK] crosses the hill.", top=3)
          >>> len(guesses), guesses[0].probability >= guesses[1].probability
          (3, True)
        """
        self._must_be_for("fill_mask")
        filled = filling.fill_mask(self._engine, text_features.listed(texts), top)
        return filled[0] if isinstance(texts, str) else filled

    @overload
    def classify(self, texts: str, pairs: str | None = None) -> Classified: ...  # type: ignore[overload-overlap]

    @overload
    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Classified]: ...

    def classify(self, texts: Texts, pairs: Texts | None = None) -> Classified | list[Classified]:
        """The class, the labels that apply, or the value of a regression, for each text or pair of texts.

        What is longer than the model reads is cut with a warning.

        Args:
          texts: the texts, or the first ones of pairs, where the model was trained on pairs.
          pairs: the second text of each.

        Returns:
          A `Classified`, with `label` and `probabilities` by label from 0 to 1; for a list of texts, a list of these.

        Raises:
          InputError: the model isn't a classifier of texts, or two of its classes have the same name.

        Example:
          >>> result = bert_jax.load("runs/reviews").classify("great")
          >>> result.label in ("bad", "good"), round(sum(result.probabilities.values()), 4)
          (True, 1.0)
        """
        self._must_be_for("classify")
        # A cross-encoder's folder says where pairs are cut.
        limit = self.embedding.max_length if self.embedding.sentence_transformers else None
        features = text_features.features(self.tokenizer, limit or self._engine.longest, texts, pairs)
        classes = labelling.classified(self.head, self._engine.logits(features))
        return classes[0] if isinstance(texts, str) else classes

    @overload
    def tag(self, texts: str, predicates: str | None = None) -> list[Tagged]: ...  # type: ignore[overload-overlap]

    @overload
    def tag(self, texts: Sequence[str], predicates: Sequence[str] | None = None) -> list[list[Tagged]]: ...

    def tag(self, texts: Texts, predicates: Texts | None = None) -> list[Tagged] | list[list[Tagged]]:
        """The spans that the tags of a text's words make, as named entities. A text may have any length.

        Args:
          texts: the texts.
          predicates: for a model of semantic roles, the word of each text whose roles it finds.

        Returns:
          A list of `Tagged`, with `type`, `text`, `start` and `end` (characters of the text) and `probability`, in the
          order of the text; for a list of texts, a list of these.

        Raises:
          InputError: the model doesn't tag words; or a predicate is missing, isn't taken, or isn't a word of the text.

        Example:
          >>> text = "The old king crosses the river."
          >>> spans = bert_jax.load("runs/ner").tag(text)
          >>> all(text[span.start : span.end] == span.text for span in spans)
          True
        """
        self._must_be_for("tag")
        tagged = labelling.tag(self._engine, self.run, *text_features.columns(texts, predicates))
        return tagged[0] if isinstance(texts, str) else tagged

    @overload
    def answer(self, questions: str, contexts: str) -> Answered: ...  # type: ignore[overload-overlap]

    @overload
    def answer(self, questions: Sequence[str], contexts: Sequence[str]) -> list[Answered]: ...

    def answer(self, questions: Texts, contexts: Texts) -> Answered | list[Answered]:
        """The part of a context, of any length, that answers a question.

        Args:
          questions: the questions.
          contexts: for each question, the text to look in.

        Returns:
          An `Answered`, with `text`, `start` and `end` (characters of the context) and `probability`; for lists, a list
          of these. A model that was trained on questions without an answer may give the text "".

        Raises:
          InputError: the model doesn't answer questions, or a question or context is empty.

        Example:
          >>> context = "The old king crosses the river."
          >>> answer = bert_jax.load("runs/squad").answer("Who crosses the river?", context)
          >>> context[answer.start : answer.end] == answer.text
          True
        """
        self._must_be_for("answer")
        answers = labelling.answer(self._engine, self.run, *text_features.columns(questions, contexts))
        return answers[0] if isinstance(questions, str) else answers

    def logits_of(self, features: list[Feature]) -> list[np.ndarray]:
        """The head's logits for a task's features (`bert_jax.tasks`); those of similar length are computed together.

        Args:
          features: ids and token types of each input.

        Returns:
          An array for each feature, float32, without padding: [labels], [tokens, labels] or [tokens, 2].

        Raises:
          InputError: a feature has an id that the model has no row for, or is longer than the model reads.

        Example:
          >>> from bert_jax.tasks.base import Feature
          >>> bert = bert_jax.load("runs/reviews")
          >>> ids = bert.tokenize("great")["input_ids"][0].tolist()
          >>> [logits.shape for logits in bert.logits_of([Feature(ids, [0] * len(ids), label=None, example=0)])]
          [(2,)]
        """
        return self._engine.logits(features)

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
        return text_features.masked_feature(self.tokenizer, self._engine.longest, text).input_ids
