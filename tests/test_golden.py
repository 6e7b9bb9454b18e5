"""What earlier versions wrote is read to the bit, goes on, and scores as it did (`golden/README.md`)."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from workdirs import by_path, rows

import bert_jax
from bert_jax.config import FinetuneConfig, InputError, versions
from bert_jax.config.files import load_config
from bert_jax.convert import pretrained
from bert_jax.devices import sharding
from bert_jax.runs.finetuning import finetune, sweep
from bert_jax.runs.pretraining import pretrain
from bert_jax.training.checkpoints import Checkpoints
from bert_jax.training.program import make_program, pretraining_setup

ARCHIVES = sorted((Path(__file__).parent / "golden").glob("*.tar.xz"))
# CPUs round differently.
CLOSE = 1e-5


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda archive: archive.name.removesuffix(".tar.xz"))
def unpacked(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def golden(unpacked, tmp_path, monkeypatch) -> Path:
    """The files, to be changed freely; the paths in their configs begin here."""
    folder = shutil.copytree(unpacked, tmp_path / "golden")
    monkeypatch.chdir(folder)
    return folder


def test_the_archives_are_of_each_format():
    assert [archive.name for archive in ARCHIVES] == ["0.1.0.tar.xz", f"format-{versions.CHECKPOINT}.tar.xz"]


def test_checkpoints_with_checksums_are_checked(golden):
    """Those of the first format have none, and load as ever."""
    for folder in json.loads((golden / "arrays.json").read_text()):
        about = Path(folder) / "about/metadata"
        values = json.loads(about.read_text())
        about.write_text(json.dumps({**values, "more": 1}))
        if "format" in values:
            with pytest.raises(InputError, match=r"about: damaged \(about isn't what was saved\)"):
                pretrained.read(folder)
        else:
            pretrained.read(folder)


def checksums(tree) -> dict[str, str]:
    return {
        name: f"{hashlib.sha256(array.tobytes()).hexdigest()[:16]} {array.dtype}{list(array.shape)}"
        for name, array in by_path(tree).items()
    }


def test_parameters_are_read_to_the_bit(golden):
    recorded = json.loads((golden / "arrays.json").read_text())
    assert len(recorded) == 7
    for checkpoint, arrays in recorded.items():
        params = {"params": pretrained.read(checkpoint).params}
        assert checksums(params) == {name: value for name, value in arrays.items() if name.startswith("params/")}


def test_states_are_restored_to_the_bit(golden):
    recorded = json.loads((golden / "arrays.json").read_text())
    saved = pretrained.read("pretrained")
    config = saved.origin.config
    program = make_program(*pretraining_setup(config), sharding.make_mesh(config.mesh))
    for step in (3, 8):
        state = Checkpoints("pretrained/checkpoints").restore(step, program.state)
        assert checksums(state) == recorded[f"pretrained/checkpoints/{step}"]


def test_a_pretraining_run_goes_on(golden):
    before = rows(golden / "pretrained")
    expected = Checkpoints(golden / "pretrained/checkpoints").restore(8, like("pretrained/checkpoints/8"))
    shutil.rmtree(golden / "pretrained/checkpoints/8")  # It was saved at step 3 last.
    pretrain(load_config("pretrain.py"), "pretrained", "examples")
    assert_same_rows(rows(golden / "pretrained"), before)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=CLOSE),
        Checkpoints(golden / "pretrained/checkpoints").restore(8, like("pretrained/checkpoints/8")),
        expected,
    )


def like(checkpoint: str) -> dict:
    """The parameters of a checkpoint, to be restored on one device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params = pretrained.read(checkpoint).params
    return {"params": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), params)}


def test_a_fine_tuning_run_goes_on(golden):
    before = rows(golden / "finetuned")
    shutil.rmtree(golden / "finetuned/checkpoints/30")
    finetune(load_config("finetune.py", FinetuneConfig), "imported", "finetuned")
    assert_same_rows(rows(golden / "finetuned"), before)


def assert_same_rows(now: list[dict], before: list[dict]) -> None:
    """To 1e-5, of their size where that is above 1, but for speeds. A row may have gained values."""
    assert [row["step"] for row in now] == [row["step"] for row in before]
    for new, old in zip(now, before, strict=True):
        for name in old.keys() - {"tokens_per_second", "text_tokens_per_second"}:
            assert new[name] == pytest.approx(old[name], abs=CLOSE, rel=CLOSE), (old["step"], name)


def test_a_sweep_is_summed_up_again(golden):
    expected = json.loads((golden / "sweep/summary.json").read_text())
    (golden / "sweep/summary.json").unlink()
    (golden / "sweep/lr-0.02-seed-4/scores.json").unlink()  # Trained, but not yet scored.
    config = load_config("finetune.py", FinetuneConfig)
    before = (golden / "sweep/lr-0.02-seed-3/metrics.jsonl").read_bytes()
    sweep(replace_epochs(config, 2.0), "imported", "sweep", seeds=2, learning_rates=())
    assert json.loads((golden / "sweep/summary.json").read_text())["rates"] == expected["rates"]
    assert (golden / "sweep/lr-0.02-seed-3/metrics.jsonl").read_bytes() == before


def replace_epochs(config: FinetuneConfig, epochs: float) -> FinetuneConfig:
    return FinetuneConfig(**{**vars(config), "epochs": epochs})


def test_evaluation_gives_the_same_scores(golden):
    for model, config in (("pretrained", load_config("pretrain.py")), ("finetuned", None)):
        bert_jax.evaluate(model, config, golden / "now" / model)
        expected = json.loads((golden / "evaluated" / model / "scores.json").read_text())
        scores = json.loads((golden / "now" / model / "scores.json").read_text())
        assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=CLOSE, rel=CLOSE)
    now, before = (lines(golden / f / "finetuned/dev/predictions.jsonl") for f in ("now", "evaluated"))
    assert [row["predicted"] for row in now] == [row["predicted"] for row in before]
    assert [row["confidence"] for row in now] == pytest.approx([row["confidence"] for row in before], abs=CLOSE)


@pytest.mark.parametrize("model", ["imported", "source"])
def test_an_imported_model_predicts_the_same(golden, model):
    bert = bert_jax.load(model)
    for expected in lines(golden / "evaluated/filled.jsonl"):
        (guesses,) = bert.fill_mask(expected["text"])
        (recorded,) = expected["masks"]
        assert [guess.token for guess in guesses] == [guess["token"] for guess in recorded]
        assert [guess.probability for guess in guesses] == pytest.approx(
            [g["probability"] for g in recorded], abs=CLOSE
        )
    embedded = lines(golden / "evaluated/embedded.jsonl")
    vectors = bert.encode([row["text"] for row in embedded])
    np.testing.assert_allclose(vectors, [row["embedding"] for row in embedded], rtol=0, atol=CLOSE)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]
