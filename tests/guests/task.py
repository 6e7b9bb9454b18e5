"""A task from outside: classification of files as fastText has them, `__label__good a fine film` on a line."""

from pathlib import Path

from bert_jax.config import FinetuneConfig, InputError, TaskConfig
from bert_jax.tasks import TASKS
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.files import read_text
from bert_jax.tasks.tables import Row, Table

MARK = "__label__"


def rows(file: str):
    for number, line in enumerate(read_text(Path(file)).splitlines(), 1):
        label, _, text = line.partition(" ")
        if not label.startswith(MARK):
            raise InputError(f"{file}, line {number}: begins with {label!r}, must begin with {MARK} and the label")
        yield Row(f"{file}, line {number}", {"text": text, "label": label.removeprefix(MARK)})


def fasttext(config, labels, tables):
    files = {split: file for split in ("train", "dev", "test") if (file := getattr(config, split))}
    return Classification(config, labels, {split: Table(split, list(rows(file))) for split, file in files.items()})


TASKS["fasttext"] = fasttext


def get_config():
    return FinetuneConfig(task=TaskConfig("fasttext"), sequence_length=16, batch_size=8, epochs=1)
