"""The walls between the folders: which may import what."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "bert_jax"
ANY = {"anything"}
# The first entry that a file's path starts with counts.
MAY_IMPORT = {
    "checks.py": set(),
    "config.py": {"bert_jax.checks"},
    "config_files.py": {"bert_jax.checks", "bert_jax.config", "bert_jax.contents", "bert_jax.versions"},
    "contents.py": {"bert_jax.config"},
    "printable.py": set(),
    "signals.py": set(),
    "storage.py": {"bert_jax.config", "etils", "fsspec"},
    "folders.py": {"bert_jax.config", "bert_jax.storage"},
    "model/": {"bert_jax.config", "bert_jax.model", "jax", "flax"},
    "data/pipeline.py": {"bert_jax.config", "bert_jax.data", "tensorflow"},
    "data/masking.py": {"bert_jax.config", "bert_jax.data", "tensorflow"},
    "data/beam.py": {"bert_jax.config", "bert_jax.data", "apache_beam"},
    "data/tfds_": {"bert_jax.config", "bert_jax.data", "tensorflow", "tensorflow_datasets"},
    "data/": {
        *("bert_jax.config", "bert_jax.config_files", "bert_jax.contents", "bert_jax.data", "bert_jax.folders"),
        *("bert_jax.storage", "bert_jax.versions", "sentencepiece", "tokenizers", "tqdm"),
    },
    "training/checkpoints.py": {
        *("bert_jax.config", "bert_jax.config_files", "bert_jax.contents", "bert_jax.storage", "bert_jax.training"),
        *("bert_jax.versions", "jax", "orbax"),
    },
    "training/": {
        *("bert_jax.config", "bert_jax.contents", "bert_jax.model", "bert_jax.signals", "bert_jax.storage"),
        "bert_jax.training",
        *("flax", "jax", "optax", "tqdm", "matplotlib", "tensorboardX"),
    },
    "planning/hlo.py": set(),
    "planning/": {"bert_jax.config", "bert_jax.data", "bert_jax.planning", "bert_jax.training", "jax", "matplotlib"},
    "tasks/": {"bert_jax.config", "bert_jax.contents", "bert_jax.data", "bert_jax.packing", "bert_jax.tasks"},
    "convert/tensors.py": {
        *("bert_jax.config", "bert_jax.contents", "bert_jax.convert"),
        *("flax", "ml_dtypes", "safetensors", "torch"),
    },
    "convert/onnx.py": {"bert_jax.config", "bert_jax.convert", "bert_jax.model", "onnx"},
    "convert/tf1.py": {
        *("bert_jax.config", "bert_jax.config_files", "bert_jax.contents", "bert_jax.convert"),
        "tensorflow",
    },
    "convert/": {
        *("bert_jax.config", "bert_jax.contents", "bert_jax.convert", "bert_jax.model"),
        *("flax", "jax", "safetensors"),
    },
    "packing.py": set(),
    "versions.py": {"bert_jax.config"},
    "compiling.py": {"bert_jax.config", "jax"},
    "embedding.py": {*("bert_jax.compiling", "bert_jax.config", "bert_jax.model", "bert_jax.packing"), "jax", "tqdm"},
    "cluster.py": {"bert_jax.config"},
    "rendezvous.py": {
        *("bert_jax.cluster", "bert_jax.config", "bert_jax.printable", "bert_jax.signals", "bert_jax.storage"),
        "bert_jax.__version__",
    },
    "supervisor.py": {"bert_jax.cluster", "bert_jax.rendezvous", "bert_jax.signals", "jax"},
    **dict.fromkeys(["__init__.py", "__main__.py", "bench/", "cli.py", "commands/", "runs/"], ANY),
    **dict.fromkeys(["inference.py", "labelling.py", "model_card.py", "page.py"], ANY),
    **dict.fromkeys(["plan.py", "predict.py", "pretrained.py"], ANY),
}


def imports(file: Path) -> set[str]:
    """The modules a file imports anywhere: ours to the second level, others to the first, Python's own left out."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            found = {f"bert_jax.{alias.name}" for alias in node.names} if node.module == "bert_jax" else {node.module}
            names |= found
    levels = (".".join(name.split(".")[: 2 if name.startswith("bert_jax") else 1]) for name in names)
    return {name for name in levels if name not in sys.stdlib_module_names and name != "numpy"}


def test_every_file_imports_only_what_stands_before_it():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 15
    for file in files:
        path = file.relative_to(PACKAGE).as_posix()
        allowed = next(modules for prefix, modules in MAY_IMPORT.items() if path.startswith(prefix))
        if allowed is not ANY:
            assert imports(file) <= allowed, path


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_bert_jax_is_light():
    heavy = run("import sys, bert_jax; print({'tensorflow', 'orbax', 'jax'} & set(sys.modules))")
    assert heavy.strip() == "set()"


def test_public_names_stay_what_they_are_whatever_is_imported():
    code = """
import importlib, pkgutil, bert_jax
names = [name for name in dir(bert_jax) if name in bert_jax.__all__]
before = {name: getattr(bert_jax, name) for name in names}
for module in pkgutil.walk_packages(bert_jax.__path__, "bert_jax."):
    if module.name not in ("bert_jax.__main__", "bert_jax.data.beam"):
        importlib.import_module(module.name)
assert all(getattr(bert_jax, name) is value for name, value in before.items())
print(*(name for name, value in before.items() if callable(value)))
"""
    assert {"load", "pretrain", "finetune", "evaluate", "export", "Bert", "FinetuneConfig"} <= set(run(code).split())


def test_workers_of_prepare_never_import_tensorflow_or_jax():
    heavy = run("import sys, bert_jax.data.prepare; print({'tensorflow', 'jax'} & set(sys.modules))")
    assert heavy.strip() == "set()"


def test_help_comes_at_once():
    times = (
        "import time, subprocess, sys; t = time.time(); subprocess.run([sys.executable, '-m', 'bert_jax', '--help'], "
    )
    times += "stdout=subprocess.DEVNULL); print(time.time() - t)"
    assert min(float(run(times)) for _ in range(3)) < 0.5


def test_configs_ship_in_the_wheel(tmp_path):
    root, source = PACKAGE.parent, tmp_path / "source"
    for folder in ("bert_jax", "configs"):
        shutil.copytree(root / folder, source / folder)
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / file, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True)
    (wheel,) = tmp_path.glob("bert_jax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"bert_jax/configs/pretrain_tiny.py", "bert_jax/configs/pretrain_large.py"} <= set(names)
