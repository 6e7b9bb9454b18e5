"""What models make of some texts; as a program, one process of two, on a mesh."""

import sys

import jax
import numpy as np

import bert_jax
from bert_jax.config import MeshConfig
from bert_jax.tasks.base import Feature

TEXTS = ["the dog [MASK] a bird.", "[MASK]", "a red dog " * 9 + "[MASK] [MASK]", "the cat [MASK]"] * 3
FEATURES = [Feature([2, *range(5, 5 + n), 3], [0] * (n + 2), None, n) for n in range(1, 10)]


def results(pretrained: bert_jax.Bert, classifier: bert_jax.Bert) -> list[np.ndarray]:
    filled = pretrained.fill_mask(TEXTS, top=2)
    return [
        pretrained.encode(TEXTS, batch_tokens=64),
        pretrained.encode(TEXTS[0], "cls"),
        np.array([guess.probability for text in filled for guesses in text for guess in guesses]),
        pretrained(TEXTS[:3])[0],
        np.stack(classifier.logits_of(FEATURES)),
    ]


if __name__ == "__main__":
    port, process, pretrained, classifier, output = sys.argv[1:]
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    meshes = MeshConfig(data=2, fsdp=2), MeshConfig(data=2, tensor=2)
    berts = [bert_jax.load(folder, mesh) for folder, mesh in zip((pretrained, classifier), meshes, strict=True)]
    found = results(*berts)
    if process == "1":  # Not the first alone: each has all.
        np.savez(output, *found)
