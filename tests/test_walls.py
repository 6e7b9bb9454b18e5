"""The walls between the folders: which may import what."""

import ast
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import bert_jax
from bert_jax.models import HEADS
from bert_jax.tasks import TASKS

PACKAGE = Path(__file__).parent.parent / "bert_jax"
# Each folder, and what its files may import of the package: the folders above it that are named.
FOLDERS = {
    "files": set(),
    "config": {"files"},
    "cluster": {"files", "config"},
    "devices": {"files", "config"},
    "data": {"files", "config"},
    "models": {"config"},
    "objectives": {"config", "models"},
    "training": {"files", "config", "cluster", "devices", "models", "objectives"},
    "tasks": {"files", "config", "data", "models"},
    "convert": {"files", "config", "devices", "data", "models", "training"},
    "inference": {"files", "config", "devices", "data", "models", "tasks", "convert"},
    "runs": {
        *("files", "config", "cluster", "devices", "data", "models", "objectives", "training", "tasks", "convert"),
        "inference",
    },
    "planning": {"config", "devices", "data", "models", "training"},
    "bench": {"config", "cluster", "devices", "data", "models", "training", "tasks", "convert", "inference", "runs"},
    "cli": {
        "files",
        "config",
        "cluster",
        "devices",
        "data",
        "models",
        "training",
        "convert",
        "inference",
        "runs",
        "planning",
        "bench",
    },
}
# Packages of others, by the folder or the file that imports them; Python's own and NumPy go everywhere.
PACKAGES = {
    "files": {"etils", "fsspec"},
    "cluster/supervisor.py": {"jax"},
    "devices/program_cache.py": {"filelock", "jax", "jaxlib"},
    "devices": {"jax", "flax"},
    "data/tensorflow.py": {"tensorflow"},
    "data/beam.py": {"apache_beam"},
    "data/tfds_reading.py": {"tensorflow_datasets"},
    "data/tfds_corpus.py": {"tensorflow_datasets"},
    "data/tfds_task.py": {"tensorflow_datasets"},
    "data": {"sentencepiece", "tokenizers", "tqdm"},
    "models": {"jax", "flax", "jaxtyping", "optax"},
    "objectives": {"jaxtyping"},
    "training/barrier.py": {"jax", "orbax"},
    "training/checkpoints.py": {"jax", "orbax"},
    "training/plot.py": {"matplotlib"},
    "training/metrics.py": {"jax"},
    "training/tensorboard.py": {"tensorboardX"},
    "training": {"jax", "flax", "optax", "tqdm"},
    "convert/tensors.py": {"flax", "ml_dtypes", "safetensors", "torch"},
    "convert/onnx.py": {"onnx"},
    "convert": {"jax", "flax", "safetensors"},
    "inference": {"jax", "tokenizers", "tqdm"},
    "runs/page.py": {"matplotlib"},
    "runs": {"jax"},
    "planning/hlo.py": set(),
    "planning/costs.py": set(),
    "planning": {"jax", "matplotlib"},
    "bench": {"psutil", "jax", "tokenizers", "torch", "transformers"},
    "cli": {"tyro", "tqdm"},
}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def folder_of(file: Path) -> str:
    """The package's folder that a file lies in, at any depth; empty for one at its root."""
    first, *rest = file.relative_to(PACKAGE).parts
    return first if rest else ""


def imports(file: Path) -> set[str]:
    """The modules that a file imports anywhere in it, by their whole names; of others' packages the first part."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in inner}
    return {name if name in MODULES else name.split(".")[0] for name in names}


def test_every_file_imports_only_what_stands_before_it():
    assert {file.name for file in PACKAGE.glob("*.*")} == {"__init__.py", "__main__.py", "py.typed"}
    assert {folder for folder in map(folder_of, MODULES.values()) if folder} == FOLDERS.keys()
    for module, file in MODULES.items():
        if not (folder := folder_of(file)):
            continue
        path = file.relative_to(PACKAGE).as_posix()
        ours = {name.split(".")[1] if "." in name else name for name in imports(file) if name in MODULES}
        assert ours <= {folder, *FOLDERS[folder], "bert_jax"}, path
        others = imports(file) - {*MODULES, "bert_jax", "numpy"} - sys.stdlib_module_names
        assert others <= PACKAGES.get(path, PACKAGES.get(folder, set())), module


def test_no_module_needs_itself():
    """Not at any remove, and not where it is first called either."""
    needs = {module: imports(file) & MODULES.keys() - {"bert_jax", module} for module, file in MODULES.items()}
    while free := {module for module, needed in needs.items() if not needed & needs.keys()}:
        needs = {module: needed for module, needed in needs.items() if module not in free}
    assert not needs


def test_the_name_of_a_kind_of_head_stands_in_its_own_file():
    """Elsewhere its class says it, and its module has the name. A task may have the same: multiple_choice."""
    kinds = {type(head).__module__: kind for kind, head in HEADS.items()}
    for module, file in MODULES.items():
        nodes = ast.walk(ast.parse(file.read_text()))
        strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert strings & set(kinds.values()) <= {kinds.get(module, ""), *TASKS}, module


def test_what_is_printed_is_harmless():
    """It goes through `say`. What the folders that don't print themselves are typed by the person, and figures."""
    prints = {
        file.relative_to(PACKAGE).as_posix()
        for file in MODULES.values()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name) and node.id == "print"
    }
    own = {path for path in prints if path.split("/")[0] not in ("bench", "planning")}
    assert own == {"files/printable.py"}


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
    assert {"load", "pretrain", "finetune", "evaluate", "predict", "export", "Bert", "FinetuneConfig"} <= set(
        run(code).split()
    )


def test_type_checkers_see_the_public_names():
    nodes = ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*bert_jax.__all__} == imported - {"TYPE_CHECKING", "Any"} >= bert_jax.LATER.keys()


def test_workers_of_prepare_never_import_tensorflow_or_jax():
    heavy = run("import sys, bert_jax.data.prepare; print({'tensorflow', 'jax'} & set(sys.modules))")
    assert heavy.strip() == "set()"


def test_training_imports_no_keras_matplotlib_or_torch_and_who_wants_keras_still_has_it(tmp_path):
    code = f"""
import os, sys, bert_jax.runs.pretraining, bert_jax.data.pipeline, bert_jax.training.metrics
bert_jax.training.metrics.Metrics(bert_jax.files.storage.path({str(tmp_path)!r}), 0).close()
assert "tensorboardX" in sys.modules
print({{"keras", "matplotlib", "torch"}} & set(sys.modules), "TF_USE_LEGACY_KERAS" in os.environ)
import tensorflow
print(tensorflow.keras.__version__[0])
"""
    assert run(code).splitlines() == ["set() False", "3"]


def test_help_comes_at_once():
    """In CPU time, as other work may be in the way."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "bert_jax", "--help"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_all_modules_configs_and_types_ship_in_the_wheel(tmp_path):
    root, source = PACKAGE.parent, tmp_path / "source"
    for folder in ("bert_jax", "configs"):
        shutil.copytree(root / folder, source / folder)
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / file, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True)
    (wheel,) = tmp_path.glob("bert_jax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    ours = {file.relative_to(root).as_posix() for file in (*MODULES.values(), PACKAGE / "py.typed")}
    configs = {f"bert_jax/configs/pretrain_{size}.py" for size in ("tiny", "large")}
    assert ours | configs <= set(names)
