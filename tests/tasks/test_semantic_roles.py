"""Semantic roles: files, predicates, scores against srl-eval.pl, what is handed in."""

import gzip
import random
import subprocess

import pytest
from test_tagging import TOKENIZER, pieces, predicted

from bert_jax.config import InputError, TaskConfig
from bert_jax.models.heads.base import NO_LABEL
from bert_jax.tasks import propositions, tagging

# Words, part of speech, clauses, named entities, target verbs, arguments.
CONLL_2005 = """a NN (S* (PER*) - (A0* *
b NN * * - *) (A1*)
says VB * * say (V*) *
c NN * * - (A1* (R-A1*)
a VB * * go *) (V*)
. . *) * - * (C-A1*)

e NN (S*) * -

"""
CONLL_2012 = """#begin document (bc/x); part 000
bc/x 0 0 # NN (TOP(NP* - - - Bob * (ARG0*) * -
bc/x 0 1 says VB * say 01 1 Bob * (V*) * (1)
bc/x 0 2 go VB *)) go - 2 Bob (PER*) (ARG1*) (V*) -

bc/x 0 0 d NN (TOP*) - - - Bob * -

#end document
"""


def srl(tmp_path, train: str, dev: str | None = None) -> tagging.Tagging:
    (tmp_path / "train.conll").write_text(train)
    if dev is not None:
        (tmp_path / "dev.conll").write_text(dev)
    files = {"train": str(tmp_path / "train.conll"), "dev": dev and str(tmp_path / "dev.conll")}
    return tagging.from_config(TaskConfig(name="srl", **files))


def test_columns_of_conll_2005(tmp_path):
    task = srl(tmp_path, CONLL_2005)
    first, second = task.read("train")
    assert (first.words, first.predicate, second.predicate) == (["a", "b", "says", "c", "a", "."], 2, 4)
    assert first.tags == ["B-A0", "I-A0", "B-V", "B-A1", "I-A1", "O"]
    assert second.tags == ["O", "B-A1", "O", "B-R-A1", "B-V", "B-C-A1"]
    assert task.head.labels == ("O", "B-A0", "B-A1", "B-C-A1", "B-R-A1", "B-V", "I-A0", "I-A1")
    tagged = [tagging.Tagged(example.tags, [1.0] * 6) for example in (first, second)]
    found = task.submit(tmp_path / "out", "train", [first, second], tagged)
    props = "".join(" ".join(line.split()[4:]) + "\n" for line in CONLL_2005.split("\n")[:-1])
    assert [file.read_text() for file in found] == [props, props]
    row = task.rows([first], tagged[:1])[0]
    assert (row["gold"], row["right"]) == ("[a b A0] [says V] [c a A1] .", True)


def test_words_and_props_of_conll_2005(tmp_path):
    """The folders as they are distributed; a test file may have target verbs alone."""
    merged = [line.split() for line in CONLL_2005.split("\n")]
    for split in ("train", "devel", "test.wsj", "test.brown"):
        for kind, cells in (("words", slice(0, 1)), ("props", slice(4, 5 if "test" in split else None))):
            (tmp_path / split / kind).mkdir(parents=True)
            text = "\n".join(" ".join(row[cells]) for row in merged)
            (tmp_path / split / kind / f"{split}.02.{kind}.gz").write_bytes(gzip.compress(text.encode()))
    task = tagging.from_config(TaskConfig(name="srl", folder=str(tmp_path)))
    assert (task.dev_splits, task.test_splits) == (("dev",), ("test", "test-brown"))
    expected = srl(tmp_path, CONLL_2005).read("train")
    assert [(e.words, e.tags) for e in task.read("dev")] == [(e.words, e.tags) for e in expected]
    brown = task.read("test-brown")
    assert [(e.words, e.predicate, e.tags) for e in brown] == [(e.words, e.predicate, None) for e in expected]
    tagged = [tagging.Tagged(example.tags, [1.0] * 6) for example in expected]
    assert [file.name for file in task.submit(tmp_path, "test-brown", brown, tagged)] == ["test-brown.props"]
    (tmp_path / "devel/words/devel.02.words.gz").unlink()
    with pytest.raises(InputError, match="devel.02.props.gz: its words are missing; put devel.02.words.gz beside it"):
        tagging.from_config(task.config).read("dev")


def test_columns_of_conll_2012(tmp_path):
    task = srl(tmp_path, CONLL_2012)
    examples = task.read("train")
    assert [(e.words, e.predicate, e.tags) for e in examples] == [
        (["#", "says", "go"], 1, ["B-ARG0", "B-V", "B-ARG1"]),
        (["#", "says", "go"], 2, ["O", "O", "B-V"]),
    ]
    tagged = [tagging.Tagged(example.tags, [1.0] * 3) for example in examples]
    found = task.submit(tmp_path, "train", examples, tagged)
    assert [file.name for file in found] == ["train.props", "train.gold.props"]
    assert found[0].read_text() == found[1].read_text() == "- (ARG0*) *\nsay (V*) *\ngo (ARG1*) (V*)\n\n-\n\n"


def test_the_predicate_is_marked(tmp_path):
    task = srl(tmp_path, CONLL_2005)
    features = task.features(task.read("train"), TOKENIZER, 32, training=True)
    assert pieces(features[0].input_ids) == "[CLS] a b say ##s c a . [SEP] say ##s [SEP]"
    assert features[0].token_type_ids == [0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1]
    assert features[0].label[8:] == [NO_LABEL] * 4
    # One of two equal words.
    assert pieces(features[1].input_ids) == "[CLS] a b say ##s c a . [SEP] a [SEP]"
    assert features[1].token_type_ids == [0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1]
    # In each part of a sentence that is too long.
    features = task.features(task.read("train"), TOKENIZER, 9, training=True)
    assert all(pieces(f.input_ids).endswith("[SEP] say ##s [SEP]") for f in features if f.example == 0)
    assert all(len(feature.input_ids) <= 9 for feature in features)
    assert [t.tags for t in predicted(task, task.read("train"), features)] == [e.tags for e in task.read("train")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a - (A0*\nb say (V*)\n", ", line 2: column 3: '.V.*' doesn't fit"),
        ("a - (A0*\nb say *\n", ", line 2: column 3: .A0. is never closed"),
        ("a - *)\nb say (V*)\n", ", line 1: column 3: '..' doesn't fit"),
        ("a - (A0*A1)\nb say (V*)\n", ", line 1: column 3"),
        ("a - (A0*)\nb say V*\n", ", line 2: column 3: 'V.'"),
        ("a - *\nb say (V*) *\n", ", line 2: columns: 4, but 3 in its sentence's first line"),
        ("a - * *\nb say (V*) *\n", ", line 1: target verbs: 1, but 2 columns of arguments"),
        ("a *\nb (V*)\n", ", line 1: has no column of target verbs"),
        ("a\nb\n", ", line 1: columns: 1, but there must be 2"),
        ("a -\nb -\n", "holds no predicate"),
        ("a -\nb say\n", ", line 1: has target verbs but no columns of arguments to train on"),
        (CONLL_2012.replace("(V*) -", "* -"), ", line 2: a column of arguments has no"),
        (CONLL_2012.replace("bc/x 0 0 d NN", "d NN"), ", line 6: columns: 9, but there must be 12"),
    ],
)
def test_malformed_propositions_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=f"train.conll(: )?{message}") as error:
        srl(tmp_path, text).read("train")
    assert "\n" not in str(error.value)


def test_brackets_and_back():
    rng = random.Random(0)
    for _ in range(300):
        tags, role = [], "O"
        for _ in range(rng.randint(1, 12)):
            begins = rng.choice(["O", "B-A0", "B-A1", "B-C-A1", "B-V", ""])
            role = begins or (f"I-{role[2:]}" if role != "O" else "O")
            tags.append(role)
        cells = propositions.brackets_of_tags(tags)
        assert propositions.tags_of_brackets(cells, str) == tags
    assert propositions.brackets_of_tags(["I-A0", "I-A1", "O", "B-V"]) == ["(A0*)", "(A1*)", "*", "(V*)"]


def test_arguments_are_put_together_as_srl_eval_does():
    assert propositions.arguments(["B-A1", "B-V", "B-C-A1", "I-C-A1", "O", "B-C-V", "B-C-A0", "B-A1", "B-C-A1"]) == {
        *(("A1", (0, 1), (2, 4)), ("A0", (6, 7)), ("A1", (7, 8), (8, 9))),
    }


def test_scores_equal_srl_eval(tmp_path, real_data):
    script = real_data / "srl/srl-eval.pl"
    if not script.exists():
        pytest.skip("needs srl/srl-eval.pl, of CoNLL-2005")
    rng, roles = random.Random(1), ("A0", "A1", "C-A1", "C-A0", "R-A1", "AM-TMP", "C-V", "V")
    lines = []
    for _ in range(200):
        size = rng.randint(2, 14)
        verbs = sorted(rng.sample(range(size), rng.randint(0, min(3, size))))
        tags = [[rng.choice(["O", *(f"{p}-{r}" for p in "BI" for r in roles)]) for _ in range(size)] for _ in verbs]
        cells = [["a"] * size, ["say" if i in verbs else "-" for i in range(size)]]
        cells += map(propositions.brackets_of_tags, tags)
        lines += [*(" ".join(row) for row in zip(*cells, strict=True)), ""]
    task = srl(tmp_path, "\n".join(lines))
    examples = task.read("train")
    tagged = []
    for example in examples:
        tags = [tag if rng.random() < 0.8 else rng.choice(task.head.labels) for tag in example.tags]
        tagged.append(tagging.Tagged(tags, [1.0] * len(tags)))
    ours = task.metrics(examples, tagged)
    guess, gold = task.submit(tmp_path, "train", examples, tagged)
    command = ["perl", str(script), str(gold), str(guess)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = {line.split()[0]: line.split()[4:] for line in report.split("\n") if len(line.split()) == 7}
    assert rows.keys() >= {"Overall", "A0", "A1", "R-A1", "AM-TMP"}
    for role, values in rows.items():
        if role != "V":
            suffix = "" if role == "Overall" else f"/{role}"
            names = ("precision", "recall", "f1")
            assert [f"{ours[name + suffix]:.2f}" for name in names] == values, role
    perfect = next(line.split()[-1] for line in report.split("\n") if "perfect" in line)
    assert f"{ours['perfect']:.2f}" == perfect


def test_a_rare_role_outside_the_training_file_is_missed(tmp_path):
    task = srl(tmp_path, CONLL_2005, CONLL_2005.replace("(R-A1*)", "(R-AM-X*)"))
    examples = task.read("dev")
    tagged = predicted(task, examples, task.features(examples, TOKENIZER, 32, training=False))
    found = task.metrics(examples, tagged)
    assert (found["precision"], found["recall"], found["f1/R-AM-X"], found["perfect"]) == (100, 75, 0, 50)
