"""GLUE's tasks (arXiv 1804.07461): the form of their official files, and of those of TensorFlow Datasets."""

import sys
from dataclasses import dataclass
from pathlib import Path

from bert_jax.config import InputError, TaskConfig
from bert_jax.files.printable import say
from bert_jax.tasks.tables import Row, read_table

NLI = ("contradiction", "entailment", "neutral")
ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")
# TensorFlow Datasets numbers classes: those of NLI in this order, all others in ours.
TFDS_NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Columns:
    """A file's names for the columns of its one or two texts, the label, and the example's number."""

    texts: tuple[str, ...]
    label: str
    id: str | None


@dataclass(frozen=True)
class GlueTask:
    name: str
    """The name of its folder and its submission."""
    labels: tuple[str, ...]
    """The labels as the files write them; none for a regression."""
    texts: tuple[str, ...]
    label: str = "label"
    id: str = "index"
    """`texts`, `label` and `id` are the files' names for these columns."""
    metrics: tuple[str, ...] = ("accuracy",)
    """The best checkpoint is chosen by the last; of two, that is the one in the BERT paper's table."""
    tfds: str = ""
    """The data set's name in TensorFlow Datasets, where it differs from ours."""
    tfds_texts: tuple[str, ...] = ()
    """Its names for the texts, where they differ from the files'."""
    dev_splits: tuple[str, ...] = ("dev",)
    test_splits: tuple[str, ...] = ("test",)


ONE, TWO, PREMISE = ("sentence",), ("sentence1", "sentence2"), ("premise", "hypothesis")
F1 = ("accuracy", "f1")
GLUE_TASKS = {
    "cola": GlueTask("CoLA", BINARY, ONE, metrics=("matthews",)),
    "sst-2": GlueTask("SST-2", BINARY, ONE, tfds="sst2"),
    "mrpc": GlueTask("MRPC", BINARY, ("#1 String", "#2 String"), "Quality", metrics=F1, tfds_texts=TWO),
    "sts-b": GlueTask("STS-B", (), TWO, "score", metrics=("pearson", "spearman"), tfds="stsb"),
    "qqp": GlueTask("QQP", BINARY, ("question1", "question2"), "is_duplicate", "id", metrics=F1),
    "mnli": GlueTask(
        "MNLI",
        NLI,
        TWO,
        "gold_label",
        tfds_texts=PREMISE,
        dev_splits=("dev_matched", "dev_mismatched"),
        test_splits=("test_matched", "test_mismatched"),
    ),
    "qnli": GlueTask("QNLI", ENTAILMENT, ("question", "sentence")),
    "rte": GlueTask("RTE", ENTAILMENT, TWO),
    "wnli": GlueTask("WNLI", BINARY, TWO),
    # Diagnostics for an MNLI model; "dev" has the rows of "test", with their labels.
    "ax": GlueTask("AX", NLI, TWO, metrics=("matthews",), tfds_texts=PREMISE),
}
# Files whose columns have other names than the task's other files.
COLA_WITHOUT_HEADER = Columns(("4",), "2", None)
AX_WITH_LABELS = Columns(("Premise", "Hypothesis"), "Label", None)
AX_FILES = {"dev": "diagnostic-full.tsv", "test": "diagnostic.tsv"}
AX_FOLDERS = ("AX", "diagnostic", "diagnostics", "MNLI")


def dev_splits(config: TaskConfig) -> tuple[str, ...]:
    """The dev splits that exist; ax has labels only if its full file is there."""
    if config.dev:
        return ("dev",)
    if config.name == "ax" and not (config.folder and (_folder(config) / AX_FILES["dev"]).is_file()):
        return ()
    return GLUE_TASKS[config.name].dev_splits


def test_splits(config: TaskConfig) -> tuple[str, ...]:
    return ("test",) if config.test else GLUE_TASKS[config.name].test_splits


def check_is_here(config: TaskConfig) -> None:
    """Raises `InputError` where a split comes through TensorFlow Datasets, has to be downloaded first, and no folder is
    named for that."""
    if config.name not in GLUE_TASKS or config.folder or config.data_dir or (config.dev and config.test):
        return
    from bert_jax.data.tfds_task import is_here

    if not is_here(dataset := _dataset(config.name)):
        remedy = "give its files (--task.folder FOLDER), or a folder to fetch them into (--task.data-dir FOLDER)"
        raise InputError(f"{config.name}: {dataset} of TensorFlow Datasets isn't on this machine; {remedy}")


def read_glue(config: TaskConfig, split: str) -> tuple[list[Row], Columns]:
    """The rows of a split and the names of their columns, from a file, the folder, or TensorFlow Datasets.

    Quotes are ordinary characters. Rows of QQP that lack a column (one of its questions contains a line end) are left
    out, as by the original's reader, and counted.
    """
    if config.name == "ax" and split == "train":
        raise InputError("ax: has no training file; evaluate a model of mnli on it")
    file = {"train": config.train, "dev": config.dev, "test": config.test}.get(split)
    if not file and not config.folder:
        return _from_tfds(config.name, split, config.data_dir)
    if not file and config.name == "mrpc" and not (_folder(config) / f"{split}.tsv").is_file():
        rows, header = _from_microsoft(_folder(config), split), True
    else:
        name = AX_FILES[split] if config.name == "ax" else f"{split}.tsv"
        header = config.name != "cola" or split == "test"
        rows = read_table(file or _folder(config) / name, header, ragged=True)
    columns = _columns(config.name, rows, header)
    if config.name == "qqp":
        rows = _whole(rows, columns, split)
    return rows, columns


def _folder(config: TaskConfig) -> Path:
    """The subfolder with the task's name, or the config's folder itself."""
    assert config.folder is not None
    folder = Path(config.folder)
    if config.name == "ax":
        candidates = (folder, *(folder / name for name in AX_FOLDERS))
        return next((p for p in candidates if any((p / file).is_file() for file in AX_FILES.values())), folder)
    inner = folder / GLUE_TASKS[config.name].name
    return inner if inner.is_dir() else folder


def _columns(name: str, rows: list[Row], header: bool) -> Columns:
    if not header:
        return COLA_WITHOUT_HEADER
    if name == "ax" and AX_WITH_LABELS.label in rows[0].values:
        return AX_WITH_LABELS
    task = GLUE_TASKS[name]
    return Columns(task.texts, task.label, task.id)


def _whole(rows: list[Row], columns: Columns, split: str) -> list[Row]:
    needed = (*columns.texts, *(() if split == "test" else (columns.label,)))
    whole = [row for row in rows if all(name in row.values for name in needed)]
    if not whole:  # The problem is then the header, not some lines.
        return rows
    if len(whole) < len(rows):
        say(f"qqp, {split}: {len(rows) - len(whole)} lines without all columns left out", file=sys.stderr)
    return whole


def _from_microsoft(folder: Path, split: str) -> list[Row]:
    """MRPC in Microsoft's files, split into train and dev by GLUE's list of pairs."""
    if split == "test":
        return read_table(folder / "msr_paraphrase_test.txt", ragged=True)
    train, ids = folder / "msr_paraphrase_train.txt", folder / "dev_ids.tsv"
    if not train.is_file() or not ids.is_file():
        raise InputError(f"{folder}: has neither {split}.tsv nor both {train.name} and {ids.name}")
    dev = {(row.values["1"], row.values.get("2")) for row in read_table(ids, header=False, ragged=True)}
    rows = read_table(train, ragged=True)
    return [r for r in rows if ((r.values.get("#1 ID"), r.values.get("#2 ID")) in dev) == (split == "dev")]


def _dataset(name: str) -> str:
    return f"glue/{GLUE_TASKS[name].tfds or name}"


def _from_tfds(name: str, split: str, data_dir: str | None) -> tuple[list[Row], Columns]:
    # Imported only here, because it imports TensorFlow.
    from bert_jax.data.tfds_task import tfds_records

    task, tfds_split = GLUE_TASKS[name], split.replace("dev", "validation")
    dataset = _dataset(name)
    classes = TFDS_NLI if task.labels == NLI else task.labels
    rows = []
    for record in tfds_records(dataset, tfds_split, data_dir):
        if split in task.test_splits:
            del record["label"]  # It is -1: the label is secret.
        elif classes:
            record["label"] = classes[record["label"]]
        rows.append(Row(f"{dataset}, {tfds_split}, record {record['idx']}", record))
    return rows, Columns(task.tfds_texts or task.texts, "label", "idx")


def submission_name(name: str, split: str) -> str:
    """The file name that gluebenchmark.com expects."""
    matched = {"mnli": "-mm" if split.endswith("mismatched") else "-m"}
    return f"{GLUE_TASKS[name].name}{matched.get(name, '')}.tsv"
