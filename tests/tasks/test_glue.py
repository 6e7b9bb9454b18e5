"""GLUE: the official files, TensorFlow Datasets, scores and submissions."""

from pathlib import Path

import pytest
from test_classification import assert_same_ids

from bert_jax.config import GLUE, InputError, TaskConfig
from bert_jax.tasks.classification import Classification, Example, Prediction
from bert_jax.tasks.glue import GLUE_TASKS

NLI = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
# Each task's files as GLUE has them: header, a row or two, quotes that stand alone, a byte order mark here and there.
FILES = {
    "CoLA/train.tsv": "gj04\t1\t\tOur friends \"won't buy it.\ngj04\t0\t*\tThe car honked down.\n",
    "CoLA/dev.tsv": "gj04\t0\t*\tThem left.\n",
    "CoLA/test.tsv": "index\tsentence\n0\tBill whistled.\n",
    "SST-2/train.tsv": "sentence\tlabel\nhide new secretions \t0\n",
    "SST-2/dev.tsv": "sentence\tlabel\nit 's charming . \t1\n",
    "SST-2/test.tsv": "index\tsentence\n0\tuneasy mishmash\n",
    "MRPC/msr_paraphrase_train.txt": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe "left.\tHe went.\r\n0\t5\t6\tA b.\tC d.\r\n'
    ),
    "MRPC/dev_ids.tsv": "5\t6\n",
    "MRPC/msr_paraphrase_test.txt": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tX.\tY.\n",
    "STS-B/train.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA plane.\tAn air plane.\t5.000\n",
    "STS-B/dev.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA man.\tA dog.\t0.750\n",
    "STS-B/test.tsv": "index\tgenre\tsentence1\tsentence2\n0\tnews\tA girl.\tA girl.\n",
    "QQP/train.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n133273\t1\t2\tWho?\tWhom?\t1\n"
        "402555\t3\t4\tHow does\nit work?\tWhy?\t0\n360472\t5\t6\tWhat?\t\t0\n"
    ),
    "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\tWho?\tWhom?\t0\n",
    "QQP/test.tsv": "id\tquestion1\tquestion2\n0\tWhere?\tWhen?\n",
    "MNLI/train.tsv": NLI + "0\t1\t1n\tfiction\tIt is.\tIt isn't.\tcontradiction\tcontradiction\n",
    "MNLI/dev_matched.tsv": NLI + "0\t1\t1n\tfiction\tIt is.\tIt is.\tneutral\tentailment\n",
    "MNLI/dev_mismatched.tsv": NLI + "0\t1\t1n\tletters\tA.\tB.\tneutral\tneutral\n",
    "MNLI/test_matched.tsv": "index\tpairID\tsentence1\tsentence2\n0\t1\tM.\tN.\n",
    "MNLI/test_mismatched.tsv": "index\tpairID\tsentence1\tsentence2\n0\t1\tO.\tP.\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1.\tentailment\n",
    "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWho?\tNobody.\tnot_entailment\n",
    "QNLI/test.tsv": "index\tquestion\tsentence\n0\tWhy?\tSo.\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tNo.\tYes.\tnot_entailment\n",
    "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tYes.\tYes.\tentailment\n",
    "RTE/test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
    "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt is.\tHe is.\t1\n",
    "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tIt was.\tHe was.\t0\n",
    "WNLI/test.tsv": "index\tsentence1\tsentence2\n0\tA.\tB.\n",
    "diagnostic/diagnostic-full.tsv": (
        "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\tHypothesis\tLabel\n"
        "\t\tNegation\t\tNews\tThe cat sat.\tThe cat did not sit.\tcontradiction\n"
    ),
    "diagnostic/diagnostic.tsv": "index\tsentence1\tsentence2\n0\tThe cat sat.\tThe cat did not sit.\n",
}
DEV = {
    "cola": (("Them left.",), "0"),
    "sst-2": (("it 's charming . ",), "1"),
    "mrpc": (("A b.", "C d."), "0"),
    "sts-b": (("A man.", "A dog."), 0.75),
    "qqp": (("Who?", "Whom?"), "0"),
    "mnli": (("It is.", "It is."), "entailment"),
    "qnli": (("Who?", "Nobody."), "not_entailment"),
    "rte": (("Yes.", "Yes."), "entailment"),
    "wnli": (("It was.", "He was."), "0"),
    "ax": (("The cat sat.", "The cat did not sit."), "contradiction"),
}
METRICS = {
    **dict.fromkeys(["sst-2", "mnli", "qnli", "rte", "wnli"], ["accuracy"]),
    **dict.fromkeys(["mrpc", "qqp"], ["accuracy", "f1"]),
    **dict.fromkeys(["cola", "ax"], ["matthews"]),
    "sts-b": ["pearson", "spearman"],
}


@pytest.fixture(scope="module")
def glue_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("glue_data")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("name", GLUE)
def test_glue_from_the_official_files(glue_folder, name):
    task = Classification(TaskConfig(name=name, folder=str(glue_folder)))
    (dev,) = task.read(task.dev_splits[0])
    assert (dev.texts, dev.label) == DEV[name]
    tests = [example for split in task.test_splits for example in task.read(split)]
    assert {example.label for example in tests} == ({"1"} if name == "mrpc" else {None})
    assert {example.id for example in tests} == {"0"}
    perfect = [Prediction(dev.label, 1.0)]
    assert list(task.metrics([dev], perfect)) == METRICS[name]
    assert task.best_by == METRICS[name][-1]
    if name != "ax":
        assert {example.label for example in task.read("train")} <= {*task.head.labels} or name == "sts-b"


def test_glue_quotes_are_characters_and_the_task_s_own_folder_does_too(glue_folder):
    task = Classification(TaskConfig(name="cola", folder=str(glue_folder / "CoLA")))
    assert task.read("train")[0] == Example("0", ("Our friends \"won't buy it.",), "1")
    task = Classification(TaskConfig(name="mrpc", folder=str(glue_folder)))
    assert task.read("train") == [Example("0", ('He "left.', "He went."), "1")]


def test_qqp_leaves_out_the_lines_that_the_original_does_and_keeps_empty_texts(glue_folder, capsys):
    train = Classification(TaskConfig(name="qqp", folder=str(glue_folder))).read("train")
    assert [example.id for example in train] == ["133273", "360472"]
    said = capsys.readouterr().err
    assert "qqp, train: 2 lines without all columns left out" in said
    assert "1 examples with an empty text" in said


def test_mnli_has_two_of_each(glue_folder, tmp_path):
    task = Classification(TaskConfig(name="mnli", folder=str(glue_folder)))
    assert [task.read(split)[0].texts[0] for split in task.dev_splits] == ["It is.", "A."]
    names = []
    for split in task.test_splits:
        names += task.submit(tmp_path / "out", split, task.read(split), [Prediction("neutral", 0.5)])
    assert [(path.name, path.read_text()) for path in names] == [
        ("MNLI-m.tsv", "index\tprediction\n0\tneutral\n"),
        ("MNLI-mm.tsv", "index\tprediction\n0\tneutral\n"),
    ]


def test_ax_is_for_a_model_of_mnli(glue_folder, tmp_path):
    config = TaskConfig(name="ax", folder=str(glue_folder))
    labels = ("neutral", "entailment", "contradiction")
    task = Classification(config, labels)
    assert task.head.labels == labels
    with pytest.raises(InputError, match="mnli"):
        task.read("train")
    with pytest.raises(InputError, match="the model entailment, not_entailment"):
        Classification(config, ("entailment", "not_entailment")).read("dev")
    assert Classification(TaskConfig(name="ax", folder=str(tmp_path))).dev_splits == ()


def test_submissions_have_the_official_names_and_scores_their_range(glue_folder, tmp_path):
    names = set()
    for name in GLUE:
        task = Classification(TaskConfig(name=name, folder=str(glue_folder)))
        label = 5.25 if name == "sts-b" else task.head.labels[0]
        for split in task.test_splits:
            names |= {p.name for p in task.submit(tmp_path, split, task.read(split), [Prediction(label, 1.0)])}
    assert names == {
        *("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"),
        *("QNLI.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv"),
    }
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t5.000\n"
    task = Classification(TaskConfig(name="sts-b", folder=str(glue_folder)))
    examples = [Example(str(i), ("", ""), None) for i in range(3)]
    task.submit(tmp_path, "test", examples, [Prediction(x, None) for x in (-0.2, 2.00049, 3.1235)])
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t0.000\n1\t2.000\n2\t3.123\n"


@pytest.mark.parametrize("name", GLUE)
def test_glue_through_tfds(name):
    import tensorflow_datasets as tfds

    task = Classification(TaskConfig(name=name))
    with tfds.testing.mock_data(num_examples=4):
        for split in (*task.dev_splits, *task.test_splits):
            examples = task.read(split)
            assert len(examples) == 4
            assert [int(e.id) for e in examples] == sorted(int(e.id) for e in examples)
            assert all(len(e.texts) == len(GLUE_TASKS[name].texts) for e in examples)
            known = {type(e.label) for e in examples} == {float if name == "sts-b" else str}
            assert known if split in task.dev_splits else {e.label for e in examples} == {None}


def test_tfds_classes_get_the_names_of_the_files(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds.builder("glue/mnli", data_dir=str(tmp_path))
    records = {"premise": ["a", "b", "c"], "hypothesis": ["x", "y", "ü"], "label": [2, 0, 1], "idx": [2, 1, 0]}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="glue",
        version=str(builder.version),
        features=builder.info.features,
        split_datasets={"validation_matched": tf.data.Dataset.from_tensor_slices(records)},
        config="mnli",
        data_dir=str(tmp_path),
    )
    task = Classification(TaskConfig(name="mnli", data_dir=str(tmp_path)))
    assert task.read("dev_matched") == [
        Example("0", ("c", "ü"), "neutral"),
        Example("1", ("b", "y"), "entailment"),
        Example("2", ("a", "x"), "contradiction"),
    ]


def test_glue_with_a_column_of_ids(glue_folder):
    """CoLA's files have none without a header."""
    with pytest.raises(InputError, match="train.tsv, line 1: has no 'id', only 1, 2, 3, 4; add it"):
        Classification(TaskConfig(name="cola", folder=str(glue_folder), id_column="id")).read("train")
    examples = Classification(TaskConfig(name="cola", folder=str(glue_folder), id_column="1")).read("train")
    assert {example.id for example in examples} == {"gj04"}


ROWS = {
    "cola": (8551, 1043, 1063),
    "sst-2": (67_349, 872, 1821),
    "sts-b": (5749, 1500, 1379),
    "rte": (2490, 277, 3000),
    "wnli": (635, 71, 146),
}


@pytest.mark.parametrize("name", ROWS)
def test_real_glue_has_its_official_number_of_rows_and_the_peer_s_ids(real_data, tmp_path, name):
    task = Classification(TaskConfig(name=name, folder=str(real_data / "glue")))
    splits = [task.read(split) for split in ("train", "dev", "test")]
    assert tuple(map(len, splits)) == ROWS[name]
    assert [e.id for e in splits[2]] == [str(i) for i in range(ROWS[name][2])]
    examples = [example for examples in splits for example in examples[:500]]
    assert_same_ids(task, examples, real_data / "vocab/bert-base-uncased-vocab.txt", tmp_path, lowercase=True)


def test_the_config_has_the_paper_s_recipe():
    from bert_jax.configs.finetune_glue import get_config

    config = get_config("mrpc")
    assert (config.task.name, config.batch_size, config.epochs, config.sequence_length) == ("mrpc", 32, 3, 128)
    assert (config.optimizer.learning_rate, config.warmup) == (2e-5, 0.1)
    with pytest.raises(InputError, match="'rti' is none of GLUE's: cola"):
        get_config("rti")
