"""Batches of a task's features: several texts in a row, each as if it were alone, little padding, few shapes."""

import heads
import jax
import numpy as np
import pytest
import torch

from bert_jax import tasks
from bert_jax.config import HeadConfig, TaskConfig
from bert_jax.data import tokenizers
from bert_jax.models import make_model
from bert_jax.models.heads.base import NO_LABEL
from bert_jax.objectives import HeadObjective
from bert_jax.tasks.base import Choices, Feature
from bert_jax.tasks.batches import Batches


def everything(size: int) -> tuple[range]:
    """All rows of a batch: one process holds them."""
    return (range(size),)


def features(lengths) -> list[Feature]:
    return [Feature([7] * n, [0] * n, 0, i) for i, n in enumerate(lengths)]


def random_feature(kind: str, number: int, rng: np.random.Generator) -> Feature | Choices:
    def text(length: int) -> tuple[list[int], list[int]]:
        return rng.integers(5, 1000, length).tolist(), [int(i > length // 2) for i in range(length)]

    length = int(rng.integers(3, 40))
    ids, types = text(length)
    match kind:
        case "classifier":
            return Feature(ids, types, int(rng.integers(3)), number)
        case "regression":
            return Feature(ids, types, float(rng.random()), number)
        case "token_classification":
            label = [int(i) if i >= 0 else NO_LABEL for i in rng.integers(-1, 3, length)]
            return Feature(ids, types, label, number)
        case "question_answering":
            return Feature(ids, types, tuple(rng.integers(0, length, 2).tolist()), number)
        case "multiple_choice":
            ids, types = zip(*(text(int(rng.integers(3, 20))) for _ in range(3)), strict=True)
            return Choices(list(ids), list(types), int(rng.integers(3)), number)


def alone(bert: torch.nn.Module, kind: str, feature: Feature | Choices) -> tuple[np.ndarray, float]:
    """Torch's outputs for a feature, without padding (but of its shorter choices), and its loss."""
    texts, types = zip(*feature.texts, strict=True)
    longest = max(map(len, texts))
    inputs = {
        "input_ids": [ids + [0] * (longest - len(ids)) for ids in texts],
        "token_type_ids": [ids + [0] * (longest - len(ids)) for ids in types],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts],
    }
    shape = (1, 3, longest) if kind == "multiple_choice" else (1, longest)
    inputs = {name: torch.tensor(x).reshape(shape) for name, x in inputs.items()}
    label = torch.tensor([feature.label])
    names = ("start_positions", "end_positions") if kind == "question_answering" else ("labels",)
    labels = zip(names, label.T if kind == "question_answering" else [label], strict=True)
    with torch.no_grad():
        found = bert(**inputs, **dict(labels))
    if kind == "question_answering":
        return np.stack([found.start_logits[0], found.end_logits[0]], -1), 2 * float(found.loss)
    count = sum(i >= 0 for i in feature.label) if kind == "token_classification" else 1
    return found.logits[0].numpy(), float(found.loss) * count if count else 0.0


@pytest.mark.parametrize(
    "kind", ["classifier", "regression", "token_classification", "question_answering", "multiple_choice"]
)
def test_a_text_among_others_has_the_outputs_and_the_loss_of_torch(kind):
    case, rng = heads.case(kind), np.random.default_rng(0)
    found = [random_feature(kind, number, rng) for number in range(21)]
    expected = [alone(case.torch, kind, feature) for feature in found]
    model = make_model(case.model, case.head)
    found_logits = heads.engine_of(model, case.params).logits(found, positions=96, longest=64)
    for logits, (theirs, _) in zip(found_logits, expected, strict=True):
        assert logits.shape == theirs.shape and np.abs(logits - theirs).max() < 1e-4
    batches = Batches(found, 8, case.head, 0, parts=2)
    sums_of = jax.jit(HeadObjective(model).sums)
    for chosen, batch in zip(batches.epoch(0, 0), batches.train(0, 0, len(batches), everything), strict=True):
        sums = sums_of(case.params, (), batch)
        assert float(sums["label_loss"]) == pytest.approx(sum(expected[number][1] for number in chosen), rel=1e-4)
        assert float(sums["label_count"]) == pytest.approx(float(model.kind.counts(batch)["label"]), abs=1e-3)
        assert len(batch["labels"]) % 2 == 0
    assert (batch["first_tokens"] > 0).any()


def test_every_epoch_has_each_feature_once_and_any_start_is_the_same():
    found = features(np.random.default_rng(0).integers(3, 60, 501))
    batches = Batches(found, 16, HeadConfig("sequence_classification", ("no", "yes")), 0)
    steps = list(batches.train(1, 0, 2 * len(batches), everything))
    for epoch in (steps[: len(batches)], steps[len(batches) :]):
        assert [(batch["labels"] >= 0).sum() for batch in epoch] == [16] * 31 + [5]
        lengths = [n for b in epoch for row in b["sequence_ids"] for n in np.bincount(row[row >= 0])]
        assert sorted(lengths) == sorted(len(feature.input_ids) for feature in found)
    later = next(batches.train(1, len(batches) + 5, 2 * len(batches), everything))
    assert all(np.array_equal(later[name], steps[len(batches) + 5][name]) for name in later)
    half = next(batches.train(1, 0, 1, lambda size: (range(size // 2, size),)))
    assert np.array_equal(half["input_ids"], steps[0]["input_ids"][len(steps[0]["input_ids"]) // 2 :])


def test_a_batch_that_fits_in_no_other_shape_has_a_row_for_each_text():
    """Short texts, but for a few; a batch that has them all is none of those for which the shapes were chosen."""
    batches = Batches(features([4] * 640 + [100] * 16), 16, HeadConfig("sequence_classification", ("no", "yes")), 0)
    assert batches.shapes[-1][0] == 16 and batches.shapes[-1][1] >= 100
    chosen = np.arange(640, 656)
    shape, packed = batches._packed(chosen)
    assert shape == batches.shapes[-1] and packed == [[i] for i in chosen]


@pytest.mark.parametrize("longest", [5, 60])
def test_the_largest_shape_is_known_before_the_first_batch(longest):
    """One length alone has one shape; of several the last one is for batches that are seldom, or never, drawn."""
    found = features(np.random.default_rng(0).integers(5, longest, 501, endpoint=True))
    batches = Batches(found, 16, HeadConfig("sequence_classification", ("no", "yes")), 0, parts=2)
    largest = max(batches.train(0, 0, len(batches), everything), key=lambda batch: batch["input_ids"].size)
    assert {n: (x.shape, x.dtype) for n, x in largest.items()} == {
        n: (x.shape, x.dtype) for n, x in batches.largest().items()
    }


@pytest.mark.parametrize("name", ["SST-2", "CoLA", "RTE", "STS-B"])
def test_little_is_padding_and_few_shapes_are_compiled(real_data, name):
    task = tasks.make(TaskConfig(name=name.lower(), folder=str(real_data / "glue" / name)))
    vocab = (real_data / "vocab/bert-base-uncased-vocab.txt").read_text().splitlines()
    examples = task.read("train")[:10_000]
    found = task.features(examples, tokenizers.WordPiece(vocab, True), 128, True)
    batches = Batches(
        found, 32, HeadConfig("sequence_classification", ("value",) if name == "STS-B" else ("no", "yes")), 0
    )
    epochs = list(batches.train(0, 0, 2 * len(batches), everything))
    tokens = sum(batch["attention_mask"].sum() for batch in epochs)
    assert tokens / sum(batch["input_ids"].size for batch in epochs) > 0.9
    assert len({batch["input_ids"].shape for batch in epochs}) <= 9
