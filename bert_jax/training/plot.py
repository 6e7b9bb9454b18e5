"""The curves of a run as a picture."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from bert_jax.training import metrics


def plot_metrics(metrics_file: Path, png: Path) -> None:
    """Draws loss and accuracy over the steps, trained and held out, beside the unigram's loss."""
    rows = metrics.read(metrics_file)
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axes, name in ((loss, "mlm_loss"), (accuracy, "mlm_accuracy"), (accuracy, "nsp_accuracy")):
        task, what = name.upper().split("_")
        color = "C2" if task == "NSP" else "C0"
        _curve(axes, rows, name, color=color, alpha=0.4, label=f"{task}, training")
        _curve(axes, rows, f"held_out_{name}", color=color, marker="o", markersize=4, label=f"{task}, held out")
        axes.set(xlabel="step", title={"LOSS": "masked-LM loss (nats)", "ACCURACY": "accuracy"}[what])
    _curve(loss, rows, "held_out_unigram_loss", color="C3", linestyle="--", label="unigram, held out")
    accuracy.set_ylim(0, 1)
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_lines():
            axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    png.write_bytes(picture.getvalue())


def _curve(axes, rows: list[dict], name: str, **style) -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **style)
