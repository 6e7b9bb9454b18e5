"""Prints the table of reproduce_bert_base.sh: mean scores over seeds, at each task's best rate, and the paper's scores.

The best learning rate is the one with the highest value of a task's first score in `ROWS`.
"""

import math
import sys
from pathlib import Path
from types import NoneType

from bert_jax.config import InputError
from bert_jax.files import contents
from bert_jax.files.printable import say

# Folder, score, and the paper's values for BERT-Base (arXiv 1810.04805): on dev (tables 2, 5 and 7; the single systems
# in tables 2 and 7), and on the hidden test set (table 1; GLUE's server scores it). None: not given.
ROWS = (
    ("cola", "dev_matthews", None, 52.1),
    ("sst-2", "dev_accuracy", 92.7, 93.5),
    ("mrpc", "dev_accuracy", 86.7, None),
    ("mrpc", "dev_f1", None, 88.9),
    ("sts-b", "dev_spearman", None, 85.8),
    ("qqp", "dev_f1", None, 71.2),
    ("mnli", "dev_matched_accuracy", 84.4, 84.6),
    ("mnli", "dev_mismatched_accuracy", None, 83.4),
    ("qnli", "dev_accuracy", 88.4, 90.5),
    ("rte", "dev_accuracy", None, 66.4),
    ("wnli", "dev_accuracy", None, None),
    ("squad", "dev_exact_match", 80.8, None),
    ("squad", "dev_f1", 88.5, None),
    ("ner", "dev_f1", 96.4, None),
)


AGAIN = "remove it, and the command that wrote it sums its runs up again"


def main(workdir: Path) -> None:
    print("| task | score | ours | paper, dev | paper, test | difference | learning rate | seeds | hardware |")
    print("|---|---|---|---|---|---|---|---|---|")
    for task, score, dev, test in ROWS:
        file = workdir / task / "summary.json"
        if file.exists():
            say(f"| {' | '.join(row(task, score, dev, test, file))} |")


def row(task: str, score: str, dev: float | None, test: float | None, file: Path) -> list[str]:
    best_by = next(first_score for name, first_score, *_ in ROWS if name == task)
    summary = contents.json_object(file, remedy=AGAIN)
    number = (float, NoneType)  # null is a score that isn't finite.
    spread = {"mean": number, "deviation": number, "runs": [number]}
    contents.check_values(summary, {"rates": {str: {best_by: spread, score: spread}}, "devices": str}, file, AGAIN)
    if not summary["rates"]:
        raise InputError(f"{file}: damaged (it has no rates); {AGAIN}")
    best = (rate for rate, scores in summary["rates"].items() if scores[best_by]["mean"] is not None)
    rate = max(best, key=lambda rate: summary["rates"][rate][best_by]["mean"], default=next(iter(summary["rates"])))
    ours = summary["rates"][rate][score]
    mean, deviation = (math.nan if ours[name] is None else ours[name] for name in ("mean", "deviation"))
    paper = dev if dev is not None else test
    difference = "" if paper is None else f"{mean - paper:+.1f}{'' if dev is not None else ' to test'}"
    papers = ["" if value is None else f"{value:.1f}" for value in (dev, test)]
    figure = f"{mean:.1f} ± {deviation:.1f}"
    return [task, score, figure, *papers, difference, rate, str(len(ours["runs"])), summary["devices"]]


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except InputError as error:
        say(f"{error}", file=sys.stderr)
        sys.exit(2)
