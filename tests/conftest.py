"""Fixtures: a small corpus with some structure, its config, and its examples."""

import contextlib
import dataclasses
import os
import random
import shutil
from pathlib import Path

import jaxtyping
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Every program is compiled once, commands in processes of their own included, and kept for the next session.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = Path(__file__).parents[1] / ".pytest_cache/programs"
    if sum(file.stat().st_size for file in programs.glob("*")) > 1 << 30:
        shutil.rmtree(programs)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Compiled in less than half the time: the tests compile many small programs, and run each a few times.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads wait for each other busily, in each other's way.
# torch's build for GPUs brings it and imports it late: behind TensorFlow, whose LLVM it then meets, it crashes.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

# Shapes and types of arrays are held against the annotations while a program is traced, not while it runs.
jaxtyping.install_import_hook(["bert_jax.models", "bert_jax.objectives.head"], "beartype.beartype")

from bert_jax.config import (
    CorpusConfig,
    ExamplesConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    Phase,
    PretrainConfig,
    RunConfig,
    TokenizerConfig,
)


def with_devices(count: int) -> dict[str, str]:
    """The environment in which a process has so many simulated devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return os.environ | {"XLA_FLAGS": flags}


SUBJECTS = ["the dog", "a small bird", "my neighbour", "the old king", "every teacher", "that river", "her brother"]
VERBS = ["watches", "follows", "paints", "forgets", "admires", "crosses", "remembers"]
OBJECTS = ["the green hill", "a broken clock", "two loud trains", "the quiet garden", "an open book", "some warm bread"]


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}.".capitalize() for _ in range(count)]


def write_corpus(path: Path, documents: int = 60, seed: int = 0) -> Path:
    """Documents of a few paragraphs of a few sentences."""
    rng = random.Random(seed)
    text = []
    for d in range(documents):
        paragraphs = [" ".join(sentences(rng.randint(2, 5), seed * 1000 + d * 10 + p)) for p in range(3)]
        text.append(f"Document {d} of {documents}.\n" + "\n".join(paragraphs))
    path.write_text("\n\n".join(text) + "\n")
    return path


def small_config(corpus: Path, **changes) -> PretrainConfig:
    """One layer, 32 wide, 30 steps: seconds on a CPU."""
    config = PretrainConfig(
        corpus=CorpusConfig(source="text", files=(str(corpus),), held_out=0.1),
        tokenizer=TokenizerConfig(vocab_size=200),
        examples=ExamplesConfig(),
        model=ModelConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=5),
        phases=(Phase(sequence_length=32, batch_size=8, steps=30, max_predictions=5),),
        mesh=MeshConfig(),
        run=RunConfig(log_every=1, evaluate_every=10, checkpoint_every=10, workers=1),
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


@pytest.fixture(scope="session")
def config(corpus) -> PretrainConfig:
    return small_config(corpus)


@pytest.fixture(scope="session")
def examples(config, tmp_path_factory):
    from bert_jax.data.prepare import prepare

    return prepare(config, tmp_path_factory.mktemp("examples") / "small")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real corpora and vocabularies, where there is one."""
    folder = os.environ.get("BERT_JAX_DATA")
    if not folder:
        pytest.skip("needs real data: set BERT_JAX_DATA to its folder")
    return Path(folder)
