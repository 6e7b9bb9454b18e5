"""Checkpoints carry checksums of what they hold: what is restored is what was saved, or is named."""

import contextlib
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from workdirs import by_path

from bert_jax.config import HeadConfig, InputError, ModelConfig, RunConfig, versions
from bert_jax.convert import pretrained
from bert_jax.convert.origin import Folder
from bert_jax.data.no_tokenizer import NoTokenizer
from bert_jax.models import init_params, make_model
from bert_jax.training import checkpoints as saving
from bert_jax.training.checkpoints import Checkpoints
from bert_jax.training.checksums import CHUNK, _on_devices, _on_host, checksums

ABOUT = {"config": {"a": [1, 2.5]}, "examples": "x", "init": None}
TOKENIZER = {"kind": "none", "text": "ä"}


def a_state() -> dict:
    """Arrays of several types and ranks, one of them larger than what is read at once."""
    rng = np.random.default_rng(0)
    state = {
        "large": rng.standard_normal((3, CHUNK // 2 + 5), np.float32),
        "small": rng.standard_normal((7, 3, 2), np.float32),
        "halves": rng.standard_normal((5, 9), np.float32).astype(ml_dtypes.bfloat16),
        "step": np.int32(41),
        "flags": np.array([True, False, True]),
        "bytes": rng.integers(0, 255, (4, 4), np.uint8),
    }
    return {"params": {name: jnp.asarray(array) for name, array in state.items()}}


def like(state):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)


def slowly(array: np.ndarray) -> int:
    """The sum as the module says it, with Python's numbers."""
    total, word = 0, min(array.itemsize, 4)
    for place, bits in enumerate(np.atleast_1d(array).tobytes()[i : i + word] for i in range(0, array.nbytes, word)):
        mixed = int.from_bytes(bits, "little") * 0x9E3779B1 % 2**32
        total += (mixed ^ mixed >> 15) * (2 * place + 1)
    return total % 2**32


def test_a_checksum_is_the_same_by_hand_on_the_host_and_on_a_device():
    arrays = [*a_state()["params"].values()]
    for array, on_device in zip(arrays, _on_devices(arrays), strict=True):
        assert slowly(np.asarray(array)) == _on_host(np.asarray(array)) == int(on_device), array


def test_each_bit_that_flips_gives_another_checksum():
    array = np.random.default_rng(0).standard_normal(40, np.float32)
    seen = {_on_host(array)}
    for place, bit in itertools.product(range(40), range(32)):
        flipped = array.view(np.uint32).copy()
        flipped[place] ^= np.uint32(1 << bit)
        seen.add(_on_host(flipped))
    seen.add(_on_host(array[::-1]))
    assert len(seen) == 40 * 32 + 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three checkpoints of which the second is the best."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, RunConfig(keep_last=9), writing=True)
    for step, score in ((1, 0.5), (2, 0.7), (3, 0.6)):
        state = jax.tree.map(lambda x, step=step: x if x.dtype == bool else x + step, a_state())
        checkpoints.save(step, state, {**ABOUT, "step": step}, TOKENIZER)
        checkpoints.add_score(step, score)
    checkpoints.close()
    return folder


def read(folder, step: int) -> dict:
    """All that is read of a checkpoint."""
    checkpoints = Checkpoints(folder)
    with contextlib.closing(checkpoints):
        state = by_path(checkpoints.restore(step, like(a_state())))
        arrays = {name: (array.dtype, array.tobytes()) for name, array in state.items()}
        return {"about": checkpoints.about(step), "tokenizer": checkpoints.tokenizer(step), "arrays": arrays}


def flip(content: bytes, rng) -> bytes:
    changed = bytearray(content)
    changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


DAMAGES = {
    "flip": flip,
    "cut": lambda content, rng: content[: len(content) // 2],
    "empty": lambda content, rng: b"",
    "gone": lambda content, rng: None,
}


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.long) for turn in range(1, len(DAMAGES)))])
def test_damage_to_any_file_is_named_or_changes_nothing_and_bars_no_other_checkpoint(saved, tmp_path, turn, capfd):
    """With the last checkpoint that is whole, and the command that goes on from it. The long form does all to each."""
    expected = {step: read(saved, step) for step in (2, 3)}
    rng, named = np.random.default_rng(turn), set()
    files = sorted(file.relative_to(saved) for file in (saved / "3").rglob("*") if file.stat().st_size)
    files = [file for file in files if (saved / file).is_file() and "metrics" not in file.parts]  # Scores: below.
    for number, file in enumerate(files, start=turn):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        content = list(DAMAGES.values())[number % len(DAMAGES)]((folder / file).read_bytes(), rng)
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_bytes(content)
        checkpoints = Checkpoints(folder, writing=True)
        assert (checkpoints.steps, checkpoints.best) == ([1, 2, 3], 2)
        try:
            assert read(folder, 3) == expected[3], file
        except InputError as error:
            named.add(file.parts[1])
            assert str(error).startswith(f"{folder}/3"), file
            advice = f"the last good checkpoint is {folder}/2: after rm -r {folder}/3 the same command takes it"
            assert str(error).endswith(advice), file
            assert "\n" not in str(error)
        assert read(folder, 2) == expected[2], file
    assert {"about", "tokenizer", "checksums", "state"} >= named >= {"state"}
    assert "Traceback" not in capfd.readouterr().err


def test_what_orbax_keeps_for_itself_is_named_where_it_bars_all(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    (folder / "2/_CHECKPOINT_METADATA").write_text("[" * 100_000)
    with pytest.raises(InputError, match="_CHECKPOINT_METADATA: one is damaged .*; remove these files"):
        Checkpoints(folder)
    (folder / "2/_CHECKPOINT_METADATA").unlink()
    assert read(folder, 3)


def test_the_last_good_checkpoint_is_one_that_was_looked_at(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    for step in (2, 3):
        file = folder / str(step) / "tokenizer/metadata"
        file.write_text(file.read_text().replace("none", "nona"))
    with pytest.raises(InputError, match=rf"3/tokenizer: damaged \(isn't what was saved\).*is {folder}/1: after rm -r"):
        Checkpoints(folder).tokenizer(3)
    shutil.rmtree(folder / "1/state")
    with pytest.raises(InputError, match="no other checkpoint here is whole: copy it again"):
        Checkpoints(folder).tokenizer(3)


def change_an_array(folder, name="params/small") -> None:
    """As whoever writes a checkpoint anew with another array in it: every check of the files themselves is content."""
    state = ocp.PyTreeCheckpointer().restore(folder / "state")
    part, leaf = name.split("/")
    state[part][leaf] = np.array(state[part][leaf])
    state[part][leaf].reshape(-1)[3] *= -1
    ocp.PyTreeCheckpointer().save(folder / "state", state, force=True)


def test_an_array_that_isnt_what_was_saved_is_named_whatever_part_is_restored(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    change_an_array(folder / "3")
    state = a_state()
    with pytest.raises(
        InputError, match=r"3/state: damaged \(params/small isn't what was saved\); the last good .*/2:"
    ):
        Checkpoints(folder).restore(3, like(state))
    other = {"params": {"large": state["params"]["large"]}}
    assert Checkpoints(folder).restore(3, like(other))["params"]["large"].shape == (3, CHUNK // 2 + 5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"score": "a"}',
        '{"score": 0.9, "checksum": "12345678"}',
        "[1]",
        '{"score": 1' + "0" * 400 + "}",
        None,
    ],
)
def test_a_damaged_score_is_said_where_it_would_decide(saved, tmp_path, content):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    file = folder / "2/metrics/metrics"
    file.unlink() if content is None else file.write_text(content)
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps == [1, 2, 3] and checkpoints.about(2)
    for decide in (lambda: checkpoints.best, lambda: Checkpoints(folder, writing=True)):
        with pytest.raises(InputError, match=f"{file}: .*; .* rm -r {folder}/2/metrics leaves this one without"):
            decide()
    shutil.rmtree(folder / "2/metrics")
    assert Checkpoints(folder, writing=True).best == 3


def test_arrays_far_larger_than_their_files_are_refused_and_a_fresh_optimizer_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "SMALL", 1 << 20)
    rng, folder = np.random.default_rng(0), tmp_path / "checkpoints"
    zeros, weights = jnp.zeros((1000, 500)), jnp.asarray(rng.standard_normal((1000, 500), np.float32), jnp.bfloat16)
    fresh = {"params": weights.astype(jnp.float32), "mu": zeros, "nu": zeros}
    checkpoints = Checkpoints(folder, RunConfig(keep_last=9), writing=True)
    checkpoints.save(1, fresh, ABOUT, TOKENIZER)
    checkpoints.save(2, {"params": zeros}, ABOUT, TOKENIZER)
    assert checkpoints.restore(1, like(fresh))["mu"].shape == (1000, 500)
    checkpoints.wait()
    with pytest.raises(InputError, match=r"2/state: damaged .*would take 2,000,000 bytes, its files have .* is .*/1:"):
        checkpoints.restore(2, like({"params": zeros}))
    checkpoints.close()


@pytest.mark.parametrize("on_mesh", [False, True])
def test_parameters_that_are_no_numbers_are_named_with_the_checkpoint_before(saved, tmp_path, on_mesh):
    """Whoever restores them: a run that goes on would skip every update, and blame its learning rate."""
    folder, state = shutil.copytree(saved, tmp_path / "checkpoints"), a_state()
    state["params"]["large"] = state["params"]["large"].at[2, -1].set(np.nan)
    checkpoints = Checkpoints(folder, RunConfig(keep_last=9), writing=True)
    for step in (4, 5):
        checkpoints.save(step, state, ABOUT, TOKENIZER)
    checkpoints.close()
    wanted = like(state)
    if on_mesh:
        mesh = jax.make_mesh((jax.device_count(),), ("x",))
        wanted = jax.tree.map(lambda x: x.update(sharding=NamedSharding(mesh, PartitionSpec())), wanted)
    what = "params/large has numbers that aren't finite"
    for step in (5, 4):
        with pytest.raises(
            InputError, match=rf"{step}: {what} .*; after rm -r .*/{step} the .* it, {folder}/{step - 1}$"
        ):
            Checkpoints(folder).restore(step, wanted)
        shutil.rmtree(folder / str(step))
    assert Checkpoints(folder).restore(3, wanted)


def test_a_machine_with_too_little_memory_is_no_damage(saved, monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(saving, "_compare", refuse)
    with pytest.raises(InputError, match="3/state: doesn't fit into this machine's memory; use one with more"):
        Checkpoints(saved).restore(3, like(a_state()))


def test_a_later_format_is_refused_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "CHECKPOINT", 3)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, a_state(), ABOUT, TOKENIZER)
    checkpoints.close()
    monkeypatch.undo()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for use in (checkpoints.about, checkpoints.tokenizer, lambda step: checkpoints.restore(step, like(a_state()))):
        with pytest.raises(InputError, match="checkpoints/1: format 3, this version reads up to 2; upgrade bert_jax"):
            use(1)


def test_folders_of_import_are_checked(tmp_path):
    """Their arrays are written as they lie in memory."""
    model = ModelConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    head = HeadConfig("encoder")
    params = jax.tree.map(np.asarray, init_params(make_model(model, head), 0))
    pretrained.save(
        pretrained.Pretrained(model, head, NoTokenizer("a test"), params, Folder("here")), tmp_path / "folder"
    )
    jax.tree.map(np.testing.assert_array_equal, pretrained.read(tmp_path / "folder").params, params)
    record = tmp_path / "folder/checkpoints/0/checksums/metadata"
    values = json.loads(record.read_text())
    name, (spec, checksum) = next((n, v) for n, v in values["state"].items() if n.endswith("query/kernel"))
    assert checksum == checksums({"a": by_path({"params": params})[name]})["a"]
    record.write_text(record.read_text().replace(f'["{spec}", "{checksum}"]', f'["{spec}", "{checksum[::-1]}"]'))
    with pytest.raises(
        InputError, match=rf"damaged \({name} isn't what was saved\); no other checkpoint here is whole"
    ):
        pretrained.read(tmp_path / "folder")
