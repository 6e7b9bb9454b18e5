"""Tags of every scheme and spelling, and the scores of spans, against seqeval."""

import random
import warnings

import pytest
from seqeval import metrics as reference
from seqeval import scheme as schemes

from bert_jax.config import InputError, TaskConfig
from bert_jax.tasks import tagging
from bert_jax.tasks.spans import accuracy, scores, spans, standard

TYPES = ("PER", "LOC", "A-B")


# Schemes, each with its marks of a first word, one within, the last, and one alone.
SCHEMES = {"IOB2": "BIIB", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
# How a mark and a type are written, and seqeval's options for that.
SPELLINGS = {
    "B-PER": ("{mark}-{type}", {}),
    "B_PER": ("{mark}_{type}", {"delimiter": "_"}),
    "B:PER": ("{mark}:{type}", {"delimiter": ":"}),
    "PER-B": ("{type}-{mark}", {"suffix": True}),
    "PER_B": ("{type}_{mark}", {"suffix": True, "delimiter": "_"}),
    "b-per": ("{mark}-{type}", {}),
    "B": ("{mark}", {}),
}


def well_formed(rng: random.Random, scheme: str, types: tuple[str, ...], length: int) -> list[tuple[str, str]]:
    """Mark and type of each word."""
    first, within, last, alone = SCHEMES[scheme]
    tags: list[tuple[str, str]] = []
    while len(tags) < length:
        kind, size = rng.choice(types), min(rng.randint(0, 4), length - len(tags))
        marks = {0: "O", 1: alone}.get(size) or first + within * (size - 2) + last
        tags += [(mark, kind) for mark in marks]
    return tags


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_of_every_scheme_and_spelling_are_seqevals(scheme, spelling):
    form, options = SPELLINGS[spelling]
    lower = spelling.islower()

    def written(mark: str, kind: str) -> str:
        tag = "O" if mark == "O" else form.format(mark=mark, type=kind)
        return tag.lower() if lower else tag

    labels = [written(mark, kind) for mark in ("O", *dict.fromkeys(SCHEMES[scheme])) for kind in TYPES]
    rng, strict = random.Random(0), getattr(schemes, scheme.replace("BMES", "IOBES"))
    for _ in range(50):
        tags = well_formed(rng, scheme, TYPES, 12)
        # seqeval doesn't know BMES, nor small letters.
        theirs = ["O" if mark == "O" else form.format(mark=mark.replace("M", "I"), type=kind) for mark, kind in tags]
        found = schemes.Entities([theirs], strict, **options).entities[0]
        expected = [(entity.tag.lower() if lower else entity.tag, entity.start, entity.end) for entity in found]
        assert spans([standard(labels)[written(*tag)] for tag in tags]) == expected


@pytest.mark.parametrize(
    "labels",
    [
        ("O", "PER", "LOC"),
        ("NOUN", "VERB", "X", "_"),
        ("LABEL_0", "LABEL_1"),
        ("O", "NAME", "E_MAIL", "B_DAY"),
        ("O", "E_MAIL", "S_CODE"),
        ("b", "e", "m", "n", "v"),
        ("O", "OTHER", "o"),
    ],
)
def test_labels_without_a_mark_are_types_by_themselves(labels):
    assert standard(labels) == {label: "O" if label == "O" else f"I-{label}" for label in labels} | {"O": "O"}


def test_one_odd_label_leaves_the_others_their_marks():
    meaning = standard(["O", "B-PER", "I-PER", "X", "[CLS]"])
    assert [meaning[label] for label in ("B-PER", "I-PER", "X", "[CLS]")] == ["B-PER", "I-PER", "I-X", "I-[CLS]"]


# Files


def scored(tmp_path, gold: list[list[str]], guess: list[list[str]], labels: tuple[str, ...] = ()) -> dict:
    """The metrics of a model whose tags are `guess`, trained on the file that it is evaluated on, or with `labels`."""
    text = "".join("".join(f"w\t{tag}\n" for tag in one) + "\n" for one in gold)
    for split in ("train", "dev"):
        (tmp_path / f"{split}.conll").write_text(text)
    task = tagging.from_config(TaskConfig(name="ner", folder=str(tmp_path)), labels)
    assert labels or set(task.head.labels) == {tag for one in (*gold, *guess) for tag in one}
    return task.metrics(task.read("dev"), [tagging.Tagged(one, [1.0] * len(one)) for one in guess])


@pytest.mark.parametrize("spelling", ["B-PER", "B_PER", "PER-B"])
def test_scores_of_a_file_in_bilou_are_seqevals(tmp_path, spelling):
    rng, (form, options) = random.Random(1), SPELLINGS[spelling]
    gold = [well_formed(rng, "BILOU", ("PER", "LOC"), 8) for _ in range(40)]
    guess = [one if rng.random() < 0.5 else well_formed(rng, "BILOU", ("PER", "LOC"), 8) for one in gold]
    gold, guess = (
        [["O" if m == "O" else form.format(mark=m, type=t) for m, t in one] for one in tags] for tags in (gold, guess)
    )
    report = reference.v1.precision_recall_fscore_support(gold, guess, scheme=schemes.BILOU, average="micro", **options)
    found = scored(tmp_path, gold, guess)
    assert 20 < found["f1"] < 95
    assert [found[n] for n in ("precision", "recall", "f1")] == pytest.approx([100 * x for x in report[:3]])


@pytest.mark.parametrize("labels", [(), ("VERB", "DET", "NOUN"), ("O", "NOUN", "VERB", "DET")])
def test_scores_of_parts_of_speech_are_those_of_words(tmp_path, labels):
    from sklearn.metrics import precision_recall_fscore_support

    rng, kinds = random.Random(2), ["DET", "NOUN", "VERB"]
    gold = [[rng.choice(kinds) for _ in range(9)] for _ in range(20)]
    guess = [[tag if rng.random() < 0.6 else rng.choice(kinds) for tag in one] for one in gold]
    flat = [[tag for one in tags for tag in one] for tags in (gold, guess)]
    found = scored(tmp_path, gold, guess, labels)
    assert found["accuracy"] == pytest.approx(found["f1"])
    for name, expected in zip(("precision", "recall", "f1"), precision_recall_fscore_support(*flat), strict=False):
        assert [found[f"{name}/{kind}"] for kind in kinds] == pytest.approx(100 * expected)


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("a O\nb PER\n", (), "dev.conll, line 2: .*'PER' is neither O nor B-.*write B- before it"),
        ("a\tDET\tB-X\nb\tNOUN\tY\n", (), "dev.conll, line 2: .*'Y' is neither"),
        # Of CoNLL-U the last column is none of tags.
        ("1\ta\tDET\t_\n2\tb\tNOUN\t_\n", (), "dev.conll, line 1: .*'_' is neither"),
        ("a O\nb B-PER\n", ("LABEL_0", "LABEL_1"), "'B-PER' is of a type that the model lacks; there are LABEL_0"),
        ("a O\nb B-PER\n", ("O", "B_LOC", "I_LOC"), "'B-PER' is of a type that the model lacks; there are LOC"),
        ("a DET\nb B\n", ("O", "B_LOC", "I_LOC"), "'DET' is of a type that the model lacks; there are LOC"),
    ],
)
def test_tags_that_cannot_be_scored_are_refused(tmp_path, text, labels, message):
    (tmp_path / "dev.conll").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        tagging.from_config(TaskConfig(name="ner", dev=str(tmp_path / "dev.conll")), labels or ("O", "B-PER")).read(
            "dev"
        )
    assert "\n" not in str(error.value)


# Scores of spans


def random_tags(rng: random.Random, kinds: str, count: int) -> list[str]:
    return [rng.choice(["O", *(f"{rng.choice(kinds)}-{type_}" for type_ in TYPES)]) for _ in range(count)]


@pytest.mark.parametrize("kinds", ["I", "BI", "BIES", "ES"])
def test_scores_equal_seqeval(kinds):
    rng = random.Random(kinds)
    for count in (0, 1, 2, 30):
        gold = [random_tags(rng, kinds, rng.randint(1, 12)) for _ in range(count)]
        guess = [[tag if rng.random() < 0.7 else rng.choice(random_tags(rng, kinds, 1)) for tag in one] for one in gold]
        for a, b in ((gold, guess), (gold, gold), (gold, [["O"] * len(one) for one in gold])):
            ours = scores(map(set, map(spans, a)), map(set, map(spans, b)))
            if not count:
                assert ours == {"precision": 0, "recall": 0, "f1": 0}
                continue
            with warnings.catch_warnings(action="ignore"):
                report = reference.classification_report(a, b, output_dict=True)
                theirs = {n: getattr(reference, f"{n}_score")(a, b) for n in ("precision", "recall", "f1")}
            for name in report.keys() - {"micro avg", "macro avg", "weighted avg"}:
                theirs |= {
                    f"{n}/{name}": report[name][f"{n}-score" if n == "f1" else n] for n in ("precision", "recall", "f1")
                }
            assert ours == pytest.approx({name: 100 * value for name, value in theirs.items()})
            assert accuracy(a, b) == pytest.approx(100 * reference.accuracy_score(a, b))
        for one in gold:
            entities = reference.sequence_labeling.get_entities(one)
            assert spans(one) == [(type_, begin, end + 1) for type_, begin, end in entities]


def test_spans_of_tags_that_do_not_fit():
    assert spans(["I-A", "I-A", "B-A", "I-B", "O", "E-A", "I-A", "S-A", "E-A"]) == [
        *(("A", 0, 2), ("A", 2, 3), ("B", 3, 4), ("A", 5, 6), ("A", 6, 7), ("A", 7, 8), ("A", 8, 9)),
    ]
    assert spans([]) == spans(["O"]) == []
