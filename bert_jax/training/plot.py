"""Plots the curves of a run."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bert_jax.files import storage
from bert_jax.training import metrics

if TYPE_CHECKING:  # It is imported when something is drawn.
    from matplotlib.figure import Figure


def plot_pretraining(metrics_file: Path, png: Path) -> None:
    """Draws loss and accuracy over the steps, in training and on held-out text, with the unigram model's loss."""
    rows = metrics.read(metrics_file)
    figure, (loss, accuracy) = _two_panels("masked-LM loss (nats)", "accuracy")
    for axes, name in ((loss, "mlm_loss"), (accuracy, "mlm_accuracy"), (accuracy, "nsp_accuracy")):
        task = name.split("_")[0].upper()
        color = "C2" if task == "NSP" else "C0"
        _curve(axes, rows, name, color=color, alpha=0.4, label=f"{task}, training")
        _curve(axes, rows, f"held_out_{name}", color=color, marker="o", markersize=4, label=f"{task}, held out")
    _curve(loss, rows, "held_out_unigram_loss", color="C3", linestyle="--", label="unigram, held out")
    accuracy.set_ylim(0, 1)
    _save(figure, png)


def plot_finetuning(metrics_file: Path, png: Path, scores: Sequence[str]) -> None:
    """Draws the training loss and the scores with these names, such as dev_accuracy, over the steps."""
    rows = metrics.read(metrics_file)
    figure, (loss, held_out) = _two_panels("loss of training", "score")
    _curve(loss, rows, "loss", color="C0", marker="o", markersize=2)
    for name in scores:
        _curve(held_out, rows, name, marker="o", markersize=4, label=name.replace("_", " ", 1))
    _save(figure, png)


def _two_panels(*titles: str) -> tuple["Figure", Sequence]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, title in zip(panels, titles, strict=True):
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _save(figure: "Figure", png: Path) -> None:
    for axes in figure.axes:
        axes.set_xlim(left=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    storage.write_whole(png, picture.getvalue())


def _curve(axes, rows: list[dict], name: str, **style) -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **style)
