"""Settings: validated, overridden, kept as JSON, and errors that name the nearest right name."""

import dataclasses
import json

import pytest

from bert_jax.config import (
    CorpusConfig,
    ExamplesConfig,
    InputError,
    ModelConfig,
    OptimizerConfig,
    Phase,
    PretrainConfig,
    RunConfig,
    model_preset,
)
from bert_jax.config.files import differences, from_dict, load_config, to_dict


@pytest.mark.parametrize("size", ["tiny", "mini", "small", "medium", "base", "large"])
def test_shipped_configs_load_and_are_valid(size):
    config = load_config(f"pretrain_{size}").validate()
    assert config.model.num_hidden_layers == model_preset(size).num_hidden_layers


def test_base_is_the_original_recipe():
    config = load_config("pretrain_base")
    assert [(p.sequence_length, p.steps, p.batch_size) for p in config.phases] == [
        (128, 900_000, 256),
        (512, 100_000, 256),
    ]
    o = config.optimizer
    assert (o.learning_rate, o.b1, o.b2, o.eps, o.weight_decay, o.warmup_steps) == (
        1e-4,
        0.9,
        0.999,
        1e-6,
        0.01,
        10_000,
    )
    assert not o.bias_correction
    assert config.model.hidden_dropout_prob == 0.1


def test_json_round_trip():
    config = PretrainConfig(phases=(Phase(steps=5), Phase(sequence_length=512)))
    assert from_dict(PretrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_unknown_field_in_json_names_the_nearest():
    with pytest.raises(InputError, match=r"optimizer\.learning_rat: no such field.*'learning_rate'"):
        from_dict(PretrainConfig, {"optimizer": {"learning_rat": 1.0}})


def test_unknown_field_in_a_file_names_file_line_and_nearest(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from bert_jax.config import *\n\ndef get_config():\n    return PretrainConfig(optimiser=1)\n")
    with pytest.raises(InputError, match=r"mine\.py, line 4: PretrainConfig has no field 'optimiser'.*'optimizer'"):
        load_config(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("x = 1\n", "has no attribute 'get_config'"),
        ("def get_config():\n    return 3\n", "returned int"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
    ],
)
def test_broken_config_files(tmp_path, text, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_config(str(file))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_config_lists_those_there_are():
    with pytest.raises(InputError, match="pretrain_base"):
        load_config("pretrain_bass")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (dict(phases=(Phase(sequence_length=1024),)), r"phases\.0\.sequence_length: is 1024 .*max_position_embeddings"),
        (dict(phases=()), "phases: is empty"),
        (
            dict(examples=ExamplesConfig("sentence_pair")),
            r"examples\.format: is 'sentence_pair'; did you mean 'sentence_pairs'",
        ),
        (dict(examples=ExamplesConfig(dupe_factor=0)), r"examples\.dupe_factor: is 0, must be at least 1"),
        (dict(examples=ExamplesConfig("packed", dupe_factor=5)), r"examples\.dupe_factor: .* packed are alike.*--mask"),
        (dict(run=RunConfig(accumulate_steps=0)), r"run\.accumulate_steps"),
        (dict(optimizer=OptimizerConfig(learning_rate="1e-3")), r"optimizer\.learning_rate: is '1e-3', must be float"),
        (dict(optimizer=OptimizerConfig(clip_norm=float("nan"))), r"optimizer\.clip_norm: is nan, must be a finite"),
        (dict(corpus=CorpusConfig(files="a.txt")), r"corpus\.files: is 'a\.txt', must be a tuple"),
        (dict(phases=(Phase(batch_size=2.5),)), r"phases\.0\.batch_size: is 2\.5, must be int"),
        (dict(seed=1 << 40), "seed"),
        (dict(phases=(Phase(steps=10),)), r"optimizer\.warmup_steps"),
        (dict(model=model_preset("base", hidden_size=100)), r"model\.num_attention_heads"),
        (dict(model=model_preset("base", hidden_dropout_prob=1.0)), r"model\.hidden_dropout_prob"),
        (dict(run=RunConfig(log_every=0)), r"run\.log_every"),
        (dict(run=RunConfig(accumulate_steps=3)), r"phases\.0\.batch_size"),
        (
            dict(phases=(Phase(batch_size=10**13),)),
            r"phases\.0\.batch_size: is 1.*, of 128 tokens each; a batch must be",
        ),
        (dict(run=RunConfig(workers=10**9)), r"run\.workers: is 1000000000, must be at most 4,096"),
        (dict(examples=ExamplesConfig(dupe_factor=10**6)), r"examples\.dupe_factor: is 1000000, must be at most 1,024"),
    ],
)
def test_settings_that_make_no_sense_name_the_field(changes, field):
    with pytest.raises(InputError, match=field):
        dataclasses.replace(PretrainConfig(), **changes).validate()


def test_differences_name_paths():
    a, b = PretrainConfig(), PretrainConfig(seed=3, phases=(Phase(steps=7),))
    assert differences(to_dict(a), to_dict(b)) == [("phases.0.steps", 1_000_000, 7), ("seed", 0, 3)]


def test_a_vocabulary_of_unknown_size():
    with pytest.raises(InputError, match="model.vocab_size: isn't known yet"):
        _ = ModelConfig().padded_vocab_size


def test_whole_numbers_are_real_ones_where_these_belong():
    """JAX takes no whole number of more than 32 bits."""
    model = ModelConfig(vocab_size=20, initializer_range=10**12, layer_norm_eps=1, hidden_dropout_prob=0).validate()
    values = (model.initializer_range, model.layer_norm_eps, model.hidden_dropout_prob)
    assert [type(x) for x in (*values, OptimizerConfig(weight_decay=10**12).weight_decay)] == [float] * 4
