"""A tag for each word: named entities and anything else in columns (BERT paper, section 5.3), and semantic roles.

A word's tag is predicted at its first piece. A sentence longer than the input becomes several features, which together
predict each word once, with context on both sides.
"""

import abc
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from bert_jax.config import HeadConfig, InputError, TaskConfig
from bert_jax.data.tokenizers import UNK, Layout, Tokenizer
from bert_jax.models import TokenClassification
from bert_jax.models.heads.base import NO_LABEL
from bert_jax.tasks import columns, propositions
from bert_jax.tasks.base import Feature, Ids, check_unnamed
from bert_jax.tasks.classes import check_alike, counted
from bert_jax.tasks.spans import accuracy, marked, scores, spans, standard, tag_every_word
from bert_jax.tasks.tables import NO_TABLES, Table, Tables

# Names of the official files, relative to the task's folder. The first pattern that matches a file counts.
NER_FILES = {
    "train": ("eng.train", "wnut17train.conll", "train.txt", "train.conll"),
    "dev": ("eng.testa", "emerging.dev.conll", "valid.txt", "dev.txt", "dev.conll"),
    "test": ("eng.testb", "emerging.test.annotated", "test.txt", "test.conll"),
}
SRL_FILES = {
    "train": ("train/props/*props*", "train/**/*gold_conll"),
    "dev": ("devel/props/*props*", "development/**/*gold_conll"),
    "test": ("test.wsj/props/*props*", "test/**/*gold_conll", "conll-2012-test/**/*gold_conll"),
    "test-brown": ("test.brown/props/*props*",),
}


@dataclass(frozen=True, eq=False)
class Example:
    """A sentence; for semantic roles, a sentence with one of its predicates."""

    words: list[str]
    tags: list[str] | None
    where: str
    """File and line of the first word."""
    sentence: int
    """The sentence's number in the split."""
    text: list[str]
    """The words that may be read: the sentence's, or its whole document's."""
    start: int = 0
    """The index in `text` of the sentence's first word."""
    predicate: int | None = None
    """The index in `words` of the predicate."""


@dataclass(frozen=True)
class Window(Feature):
    """A feature that predicts some of its example's words, from the word `first` on."""

    first: int
    positions: list[int]
    """The positions of the first pieces of the words `first`, `first` + 1, ..."""


@dataclass(frozen=True)
class Tagged:
    """A tag for each word, and its probability."""

    tags: list[str]
    probabilities: list[float]


def from_config(config: TaskConfig, labels: tuple[str, ...] = (), tables: Tables = NO_TABLES) -> "Tagging":
    """The task "ner" or "srl". `labels` are those of a trained model, by default the training set's. `tables` are
    splits in memory, used instead of the config's files."""
    return (SemanticRoles if config.name == "srl" else NamedEntities)(config, labels, tables)


class Tagging(abc.ABC):
    """The `Task` of tagging words: what named entities and semantic roles have in common."""

    best_by = "f1"
    files: dict[str, tuple[str, ...]]

    def __init__(self, config: TaskConfig, labels: tuple[str, ...], tables: Tables):
        check_unnamed(config)
        self.config, self._tables = config, tables
        self._labels = tuple(labels)
        self._examples: dict[str, list[Example]] = {}
        self.dev_splits = tuple(split for split in self.files if split.startswith("dev") and self._paths(split))
        self.test_splits = tuple(split for split in self.files if split.startswith("test") and self._paths(split))

    @cached_property
    def head(self) -> HeadConfig:
        """A token classifier with a trained model's labels, or the training file's tags: O first, the others sorted."""
        if self._labels:
            return HeadConfig(TokenClassification.kind, self._labels)
        tags = {tag for example in self.read("train") for tag in example.tags or ()}
        outside = [] if tag_every_word(tags) else ["O"]
        return HeadConfig(TokenClassification.kind, (*outside, *sorted(tags - {"O"})))

    @abc.abstractmethod
    def _read(self, paths: list[Path | Table], training: bool) -> list[Example]: ...

    @abc.abstractmethod
    def submit(self, folder: Path, split: str, examples: list[Example], predictions: list[Tagged]) -> list[Path]: ...

    def read(self, split: str) -> list[Example]:
        if split not in self._examples:
            paths = self._paths(split)
            if not paths:
                raise InputError(
                    f"task.{split}: names no file, and task.folder {self.config.folder} holds none of "
                    f"{', '.join(self.files.get(split, ()))}; give one or the other"
                )
            self._examples[split] = self._read(paths, training=split == "train")
            bare = next((example for example in self._examples[split] if example.tags is None), None)
            if bare and not split.startswith("test"):
                raise InputError(f"{bare.where}: has no tags to learn from or to score; give it some, or leave it out")
        return self._examples[split]

    def _paths(self, split: str) -> list[Path | Table]:
        if split in self._tables:
            return [self._tables[split]]
        given = getattr(self.config, split, None)
        if given or not self.config.folder:
            return [Path(given)] if given else []
        for pattern in self.files.get(split, ()):
            if files := sorted(Path(self.config.folder).glob(pattern)):
                return [*files]
        return []

    def features(self, examples: list[Example], tokenizer: Tokenizer, length: int, training: bool) -> list[Window]:
        pieces, texts = _pieces(examples, tokenizer), {}
        windows: list[Window] = []
        for number, example in enumerate(examples):
            if id(example.text) not in texts:
                words = [pieces[word] for word in example.text]
                texts[id(example.text)] = list(chain(*words)), [0, *accumulate(map(len, words))]
            windows += self._features_of(example, number, *texts[id(example.text)], tokenizer.layout, length)
        return windows

    def _features_of(
        self, example: Example, number: int, flat: Ids, starts: list[int], layout: Layout, length: int
    ) -> Iterator[Window]:
        """`flat` are the text's pieces; `starts` has the index of each word's first piece, and of the end."""
        # The predicate is a second segment (arXiv 1904.05255). The authors mark which of several equal words it is in a
        # layer above the encoder; here, its pieces in the sentence have the token type of the second segment too.
        predicate = () if example.predicate is None else range(*starts[example.predicate : example.predicate + 2])
        second = [[flat[i] for i in predicate[: length // 4]]] if predicate else []
        if second and not layout.types[-2]:
            raise InputError("task srl: marks the predicate by a token type, which this model's tokenizer doesn't give")
        words = range(example.start, example.start + len(example.words))
        special = layout.special_tokens(1 + len(second))
        for own, left, right in _windows(starts, words, length - special - sum(map(len, second))):
            input_ids, types = layout.joined([flat[left:right], *second])
            for i in range(max(left, predicate.start), min(right, predicate.stop)) if predicate else ():
                types[1 + i - left] = layout.types[-2]
            positions = [1 + starts[word] - left for word in own]
            label = None
            if example.tags:
                label = [NO_LABEL] * len(input_ids)
                for position, word in zip(positions, own, strict=True):
                    label[position] = self._ids.get(example.tags[word - example.start], NO_LABEL)
            yield Window(input_ids, types, label, number, own.start - example.start, positions)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.head.labels)}

    def predict(self, examples: list[Example], features: list[Window], logits: list[np.ndarray]) -> list[Tagged]:
        labels = self.head.labels
        predictions = [Tagged([""] * len(example.words), [0.0] * len(example.words)) for example in examples]
        for feature, scored in zip(features, logits, strict=True):
            scored = np.asarray(scored, np.float64)[feature.positions]
            exponents = np.exp(scored - scored.max(-1, keepdims=True))
            probabilities = exponents / exponents.sum(-1, keepdims=True)
            best, own = probabilities.argmax(-1), slice(feature.first, feature.first + len(feature.positions))
            predictions[feature.example].tags[own] = [labels[i] for i in best]
            predictions[feature.example].probabilities[own] = probabilities.max(-1).tolist()
        return predictions

    def summary(self, examples: list[Example]) -> str:
        """How many words have each tag."""
        return counted(tag for e in examples for tag in (e.tags or (None,) * len(e.words)))

    def inputs(self, example: Example) -> tuple:
        return *example.words, example.predicate

    def metrics(self, examples: list[Example], predictions: list[Tagged]) -> dict[str, float]:
        """Precision, recall and F1 of spans, over all and for each type (f1/TYPE), and the accuracy of tags, in
        percent, of the examples with tags; empty if there are none."""
        pairs = [pair for pair in self._standard(examples, predictions) if pair[0]]
        if not pairs:
            return {}
        gold, predicted = zip(*pairs, strict=True)
        return {**scores(map(self.units, gold), map(self.units, predicted)), "accuracy": accuracy(gold, predicted)}

    def _standard(self, examples: list[Example], predictions: list[Tagged]) -> list[tuple[list[str], list[str]]]:
        """The gold tags ([] where they aren't known) and predicted tags of each example, in IOBES."""
        gold = {tag for example in examples for tag in example.tags or ()}
        plain = "B" if tag_every_word(gold) or tag_every_word({*self.head.labels}) else "I"
        gold_meaning, meaning = self._meaning(gold, plain), standard(self.head.labels, plain)
        return [
            ([gold_meaning[tag] for tag in e.tags or ()], [meaning[tag] for tag in p.tags])
            for e, p in zip(examples, predictions, strict=True)
        ]

    def _meaning(self, gold: set[str], plain: str = "I") -> dict[str, str]:
        """The tags of a file in IOBES: read as the model's labels if all are among them, else by themselves."""
        labels = self.head.labels
        return standard(labels if gold <= {*labels} else gold, plain)

    def rows(self, examples: list[Example], predictions: list[Tagged]) -> list[dict]:
        """As in `Task`, with spans marked in the text; `confidence` is the lowest of any tag."""
        pairs = self._standard(examples, predictions)
        return [
            {
                "id": str(number),
                "text": " ".join(example.words),
                "gold": marked(example.words, spans(gold)) if gold else None,
                "predicted": marked(example.words, spans(predicted)),
                "right": self.units(gold) == self.units(predicted) if gold else None,
                "confidence": min(prediction.probabilities),
            }
            for number, (example, prediction, (gold, predicted)) in enumerate(
                zip(examples, predictions, pairs, strict=True)
            )
        ]

    @staticmethod
    def units(tags: list[str]) -> set[tuple]:
        """The units that are right or wrong as a whole, in tags of IOBES; each begins with its type."""
        return set(spans(tags))


class NamedEntities(Tagging):
    """Entities, other spans, or parts of speech, in files with the token first and the tag last."""

    files = NER_FILES

    def _read(self, paths: list[Path | Table], training: bool) -> list[Example]:
        sentences = columns.read_tagged(paths[0], labelled=training)
        if self.config.document_context and not sentences[0].starts_document:
            raise InputError(
                f"{sentences[0].where()}: no {columns.START_OF_DOCUMENT} line, so where documents begin isn't known; "
                "add them, or leave out --task.document-context"
            )
        (self._check_alike if training else self._check_types)(sentences)
        examples = []
        document: list[str] = []
        for number, sentence in enumerate(sentences):
            if sentence.starts_document or not self.config.document_context:
                document = []
            if sentence.starts_document:
                continue
            words, tags = sentence.column(0), sentence.tags() or None
            examples.append(Example(words, tags, sentence.where(), number, document, len(document)))
            document += words
        return examples

    @staticmethod
    def _check_alike(sentences: list[columns.Sentence]) -> None:
        """Raises `InputError` for two types that differ only in spelling: a mistake in the file."""
        meaning = standard({tag for sentence in sentences for tag in sentence.tags()})
        types: dict[str, str] = {}
        for sentence in sentences:
            for i, tag in enumerate(sentence.tags()):
                types.setdefault(meaning[tag].partition("-")[2], sentence.where(i))
        check_alike(types.items(), "write them alike")

    def _check_types(self, sentences: list[columns.Sentence]) -> None:
        """Raises `InputError` for a type that the training file lacks; B- or I- of a known type (IOB1) may be new."""
        tags = [(s, i, tag) for s in sentences for i, tag in enumerate(s.tags())]
        meaning = self._meaning({tag for _, _, tag in tags})
        known = {tag.partition("-")[2] for tag in standard(self.head.labels).values()}
        for sentence, i, tag in tags:
            if meaning[tag].partition("-")[2] not in known:
                source = "model" if self._labels else "training set"
                raise InputError(
                    f"{sentence.where(i)}: the tag {tag!r} is of a type that the {source} lacks; there are "
                    f"{', '.join(sorted(known - {''}))}: correct it, or train on a file that has it"
                )

    def submit(self, folder: Path, split: str, examples: list[Example], predictions: list[Tagged]) -> list[Path]:
        """Writes SPLIT.conll: the file's lines plus a column of predicted tags, as conlleval and wnuteval read them."""
        tags = {e.sentence: prediction.tags for e, prediction in zip(examples, predictions, strict=True)}
        sentences = columns.read_tagged(self._paths(split)[0], labelled=False)
        width = next(len(sentence.rows[0]) for sentence in sentences if not sentence.starts_document)
        for i, sentence in enumerate(sentences):
            if sentence.starts_document:
                rows = [[*row, *["O"] * (width + 1 - len(row))] for row in sentence.rows]
            else:
                rows = [[*row, tag] for row, tag in zip(sentence.rows, tags[i], strict=True)]
            sentences[i] = replace(sentence, rows=rows)
        return [columns.write_sentences(folder / f"{split}.conll", sentences)]


class SemanticRoles(Tagging):
    """The arguments of predicates, with an example for each predicate (`propositions`).

    Rare roles that the official training files lack count as missed.
    """

    files = SRL_FILES

    def __init__(self, config: TaskConfig, labels: tuple[str, ...], tables: Tables):
        if tables:
            raise InputError("srl: reads files of CoNLL-2005 and CoNLL-2012 alone; name them: task.folder")
        super().__init__(config, labels, tables)

    def _read(self, paths: list[Path | Table], training: bool) -> list[Example]:
        examples = []
        for number, p in enumerate(self._propositions(paths)):
            if training and p.tags is None:
                raise InputError(f"{p.sentence.where()}: has target verbs but no columns of arguments to train on")
            for i, predicate in enumerate(p.predicates):
                tags, where = p.tags[i] if p.tags else None, p.sentence.where()
                examples.append(Example(p.words, tags, where, number, p.words, predicate=predicate))
        if not examples:
            raise InputError(f"{paths[0]}: holds no predicate; the column of target verbs has - in every line")
        return examples

    def _propositions(self, paths: list[Path | Table]) -> list[propositions.Propositions]:
        files = (path for path in paths if isinstance(path, Path))  # All paths: tables are refused.
        return [p for file in files for p in propositions.read_propositions(file)]

    def metrics(self, examples: list[Example], predictions: list[Tagged]) -> dict[str, float]:
        """The metrics of srl-eval.pl, over `units`; `perfect`: the share of predicates with all arguments right."""
        right = [row["right"] for row in self.rows(examples, predictions) if row["right"] is not None]
        perfect = {"perfect": 100 * sum(right) / len(right)} if right else {}
        return {**super().metrics(examples, predictions), **perfect}

    def submit(self, folder: Path, split: str, examples: list[Example], predictions: list[Tagged]) -> list[Path]:
        """Writes SPLIT.props, and SPLIT.gold.props if it is known: the two files that srl-eval.pl compares."""
        tags: dict[int, list[list[str]]] = {}
        for example, prediction in zip(examples, predictions, strict=True):
            tags.setdefault(example.sentence, []).append(prediction.tags)
        everything = self._propositions(self._paths(split))
        files = {split: [propositions.columns(p, tags.get(i, [])) for i, p in enumerate(everything)]}
        gold = [propositions.columns(p, p.tags) for p in everything if p.tags is not None]
        if len(gold) == len(everything):
            files[f"{split}.gold"] = gold
        return [columns.write_sentences(folder / f"{name}.props", sentences) for name, sentences in files.items()]

    @staticmethod
    def units(tags: list[str]) -> set[tuple]:
        return propositions.arguments(tags)


def _pieces(examples: list[Example], tokenizer: Tokenizer) -> dict[str, Ids]:
    """The ids of each word; [UNK] for a word without pieces, such as a single zero-width joiner."""
    texts = {id(example.text): example.text for example in examples}
    words = list(dict.fromkeys(chain.from_iterable(texts.values())))
    unknown = [tokenizer.special_ids[UNK]]
    return {word: ids or unknown for word, ids in zip(words, tokenizer.encode(words), strict=True)}


def _windows(starts: list[int], words: range, room: int) -> Iterator[tuple[range, int, int]]:
    """Yields words to predict together, and the range of pieces [left, right), at most `room`, to read for them.

    `starts` has the index of each word's first piece, and of the end. Words that don't all fit are split so that half
    of the room is left for context. A word that is too long for the input is cut at its end.
    """
    whole = starts[words.stop] - starts[words.start] <= room
    most = room if whole else max(1, room // 2)
    a = words.start
    while a < words.stop:
        b = max(a + 1, min(words.stop, bisect_right(starts, starts[a] + most) - 1))
        left, right = starts[a], min(starts[b], starts[a] + room)
        spare, after = room - (right - left), starts[-1] - right
        before = min(left, max(spare // 2, spare - after))
        end = right + spare - before
        # The context is whole words only.
        yield range(a, b), starts[bisect_left(starts, left - before)], max(right, starts[bisect_right(starts, end) - 1])
        a = b
