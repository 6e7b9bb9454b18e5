"""What earlier versions wrote: fields that are new, have another name now, or are gone; numbers of formats."""

import json

import pytest

from bert_jax.config import FinetuneConfig, InputError, OptimizerConfig, PretrainConfig, versions
from bert_jax.config.files import config_of, to_dict
from bert_jax.data.records import Examples
from bert_jax.training.checkpoints import check_same_run


def about(config) -> dict:
    return {"config": to_dict(config), "examples": "x"}


@pytest.mark.parametrize(
    ("config", "section", "old", "new"),
    [
        (PretrainConfig(seed=7), None, "random_seed", "seed"),
        (PretrainConfig(optimizer=OptimizerConfig(learning_rate=0.5)), "optimizer", "rate", "learning_rate"),
        (FinetuneConfig(optimizer=OptimizerConfig(learning_rate=0.5)), "optimizer", "rate", "learning_rate"),
    ],
)
def test_a_field_that_has_another_name_now_is_read_and_the_run_goes_on(config, section, old, new, monkeypatch):
    saved = about(config)
    place = saved["config"][section] if section else saved["config"]
    place[old] = place.pop(new)
    with pytest.raises(InputError, match=rf"^runs/x: ({section}\.)?{old}: no such field of "):
        config_of(saved, "runs/x")
    kind = "OptimizerConfig" if section else type(config).__name__
    monkeypatch.setitem(versions.RENAMED, f"{kind}.{old}", new)
    assert config_of(saved) == config
    check_same_run(saved, about(config), "runs/x")
    place[new] = place[old]
    with pytest.raises(InputError, match=f"{new}: is given twice, once under an older name"):
        config_of(saved)


def test_a_field_that_is_gone_is_left_out_where_it_decided_nothing(monkeypatch):
    monkeypatch.setitem(versions.REMOVED, "MaskingConfig.span", 1)
    saved = about(PretrainConfig())
    saved["config"]["masking"]["span"] = 1
    check_same_run(saved, about(PretrainConfig()), "runs/x")
    saved["config"]["masking"]["span"] = 3
    with pytest.raises(InputError, match=r"^runs/x: masking\.span: is 3, and this version only does what 1 did"):
        check_same_run(saved, about(PretrainConfig()), "runs/x")


def test_a_field_that_is_new_has_its_default():
    saved = about(PretrainConfig())
    del saved["config"]["masking"]["static"], saved["config"]["run"], saved["config"]["optimizer"]["decay"]
    check_same_run(saved, about(PretrainConfig()), "runs/x")


@pytest.mark.parametrize(
    ("number", "message"), [(99, "format 99, this version reads"), ("2", "damaged"), (True, "dam")]
)
def test_examples_of_a_later_format_are_refused_by_its_number(examples, tmp_path, number, message):
    manifest = json.loads((examples.folder / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": number}))
    (tmp_path / "tokenizer.json").write_text((examples.folder / "tokenizer.json").read_text())
    with pytest.raises(InputError, match=f"{tmp_path}.*{message}"):
        Examples(tmp_path)


def test_examples_whose_config_has_a_field_of_another_name(examples, tmp_path, monkeypatch):
    manifest = json.loads((examples.folder / "manifest.json").read_text())
    del manifest["checksum"]  # Earlier versions wrote none.
    manifest["config"]["examples"]["copies"] = manifest["config"]["examples"].pop("dupe_factor")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "tokenizer.json").write_text((examples.folder / "tokenizer.json").read_text())
    with pytest.raises(InputError, match=r"examples\.copies: no such field of ExamplesConfig"):
        Examples(tmp_path)
    monkeypatch.setitem(versions.RENAMED, "ExamplesConfig.copies", "dupe_factor")
    assert Examples(tmp_path).manifest["config"]["examples"] == examples.manifest["config"]["examples"]
