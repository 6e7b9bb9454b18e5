"""Makes an archive of what the code as it is writes, as README.md says: python tests/golden/make.py NAME

The files that it begins with are those of the first archive.
"""

import contextlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from test_golden import checksums  # noqa: E402
from workdirs import saved_state  # noqa: E402

from bert_jax.cli.main import main  # noqa: E402

GIVEN = ("corpus.txt", "train.csv", "dev.csv", "pretrain.py", "finetune.py", "source")
COMMANDS = (
    "prepare --config pretrain.py --output examples",
    "pretrain --config pretrain.py --workdir pretrained --examples examples",
    "import source imported",
    "finetune --config finetune.py --workdir finetuned --init imported",
    "finetune --config finetune.py --workdir sweep --init imported --seeds 2 --epochs 2",
    "evaluate --model pretrained --config pretrain.py --output evaluated/pretrained",
    "evaluate --model finetuned --output evaluated/finetuned",
    "predict fill-mask --model imported --input masked.txt --output evaluated/filled.jsonl",
    "predict embed --model imported --input texts.txt --output evaluated/embedded.jsonl",
)
# Neither the last ones nor the best.
DROPPED = ("pretrained/checkpoints/6", "finetuned/checkpoints/24", "sweep/*/checkpoints/6")
LEFT_OUT = ("tensorboard", "loss.png", "page.html", "masked.txt", "texts.txt", "confusion.png")


def make(archive: Path) -> None:
    with tarfile.open(HERE / "0.1.0.tar.xz") as first:
        first.extractall(".", filter="data")
    for name in ("filled", "embedded"):
        rows = [json.loads(line) for line in Path(f"evaluated/{name}.jsonl").read_text().splitlines()]
        file = Path("masked.txt" if name == "filled" else "texts.txt")
        file.write_text("".join(row["text"] + "\n" for row in rows))
    for path in Path().iterdir():
        if path.name not in (*GIVEN, "masked.txt", "texts.txt"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for command in COMMANDS:
        if code := main(command.split()):
            sys.exit(code)
    for folder in [folder for name in DROPPED for folder in Path().glob(name)]:
        shutil.rmtree(folder)
    for path in [path for name in LEFT_OUT for path in Path().rglob(name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = sorted(path.parent for path in Path().rglob("checkpoints/*/state"))
    arrays = {str(folder): checksums(saved_state(folder.absolute().parents[1], int(folder.name))) for folder in found}
    Path("arrays.json").write_text(json.dumps(arrays, indent=0))
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(".")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        make(HERE / f"{sys.argv[1]}.tar.xz")
