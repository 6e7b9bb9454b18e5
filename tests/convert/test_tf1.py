"""Checkpoints of google-research/bert, read and written, against TensorFlow's reader and torch."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf
from heads import KINDS, assert_equal, case

from bert_jax.cli.main import main
from bert_jax.config import HeadConfig, InputError, model_preset
from bert_jax.convert import names, pretrained, tf1

# BERT-Tiny as google-research released it, but for the 1,001 pieces of its vocabulary.
LAYER = """
attention/output/LayerNorm/beta (128,)
attention/output/LayerNorm/gamma (128,)
attention/output/dense/bias (128,)
attention/output/dense/kernel (128, 128)
attention/self/key/bias (128,)
attention/self/key/kernel (128, 128)
attention/self/query/bias (128,)
attention/self/query/kernel (128, 128)
attention/self/value/bias (128,)
attention/self/value/kernel (128, 128)
intermediate/dense/bias (512,)
intermediate/dense/kernel (128, 512)
output/LayerNorm/beta (128,)
output/LayerNorm/gamma (128,)
output/dense/bias (128,)
output/dense/kernel (512, 128)
"""
EMBEDDINGS = """
bert/embeddings/LayerNorm/beta (128,)
bert/embeddings/LayerNorm/gamma (128,)
bert/embeddings/position_embeddings (512, 128)
bert/embeddings/token_type_embeddings (2, 128)
bert/embeddings/word_embeddings (1001, 128)
"""
POOLER = """
bert/pooler/dense/bias (128,)
bert/pooler/dense/kernel (128, 128)
"""
PREDICTIONS = """
cls/predictions/output_bias (1001,)
cls/predictions/transform/LayerNorm/beta (128,)
cls/predictions/transform/LayerNorm/gamma (128,)
cls/predictions/transform/dense/bias (128,)
cls/predictions/transform/dense/kernel (128, 128)
"""
NEXT_SENTENCE = """
cls/seq_relationship/output_bias (2,)
cls/seq_relationship/output_weights (2, 128)
"""
LAYERS = "\n".join(f"bert/encoder/layer_{i}/{line}" for i in (0, 1) for line in LAYER.split("\n") if line)
ENCODER = f"{EMBEDDINGS}{LAYERS}"
VARIABLES = {
    "encoder": ENCODER + POOLER,
    "encoder without pooler": ENCODER,
    "masked_lm": ENCODER + PREDICTIONS,
    "pretraining": ENCODER + POOLER + PREDICTIONS + NEXT_SENTENCE,
    "gelu_tanh": ENCODER + POOLER + PREDICTIONS + NEXT_SENTENCE,
    "classifier": ENCODER + POOLER + "\noutput_bias (3,)\noutput_weights (3, 128)",
    "regression": ENCODER + POOLER + "\noutput_bias (1,)\noutput_weights (1, 128)",
    "token_classification": ENCODER + "\noutput_bias (3,)\noutput_weights (3, 128)",
    "question_answering": ENCODER + "\ncls/squad/output_bias (2,)\ncls/squad/output_weights (2, 128)",
    "multiple_choice": ENCODER + POOLER + "\noutput_bias (1,)\noutput_weights (1, 128)",
}


def save(prefix, arrays: dict[str, np.ndarray]) -> None:
    """A checkpoint as TensorFlow 1 saves it, with the file that names the latest."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, initializer=array) for name, array in arrays.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(prefix), write_meta_graph=False)


def arrays_in(folder) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def in_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By torch's names: kernels lie the other way round there, and nothing else."""
    found = {}
    for name, array in arrays.items():
        there = re.sub("^cls/squad", "qa_outputs", re.sub("^output_", "classifier/output_", name))
        there = re.sub("(_embeddings|/gamma|/kernel|/output_weights)$", r"\1/weight", there)
        there = re.sub("/(gamma|kernel|output_weights)/", "/", re.sub("/(beta|output_bias)$", "/bias", there))
        found[re.sub("layer_", "layer.", there).replace("/", ".")] = array.T if name.endswith("kernel") else array
    return found


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with a model of a kind, fields of its bert_config.json changed (None: left out)."""

    def make(kind: str = "pretraining", name: str = "bert", **fields):
        one, folder = case(kind), tmp_path / name
        tf1.write(folder, one.model, one.head, one.params)
        config = folder / "bert_config.json"
        values = json.loads(config.read_text()) | fields
        config.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again_to_the_bit(kind, folder):
    one = case(kind)
    model, head, params, report = tf1.read(folder(kind))
    assert (model, head) == (one.model, one.head)
    assert_equal(params, one.params)
    assert not (report.missing or report.unused)


@pytest.mark.parametrize("kind", KINDS)
def test_variables_are_the_originals(kind, folder):
    """Names and shapes by TensorFlow's reader, values by the torch model that they were taken from."""
    found = tf.train.list_variables(str(folder(kind) / "bert_model.ckpt"))
    assert {f"{name} {tuple(shape)}" for name, shape in found} == {line for line in VARIABLES[kind].split("\n") if line}
    arrays, bert = in_torch(arrays_in(folder(kind))), case(kind).torch
    for name, parameter in bert.named_parameters():
        array = arrays.pop(name if hasattr(bert, "bert") else f"bert.{name}")
        np.testing.assert_array_equal(array, parameter.detach().numpy(), err_msg=name, strict=True)
    assert not arrays


def test_base_has_206_variables(tmp_path):
    base = model_preset("base", vocab_size=30_522)
    found = names.array_shapes(base, HeadConfig("pretraining"), "tf1")
    assert len(found) == 206 and sum(map(math.prod, found.values())) == 110_106_428


def test_bert_config_json_has_the_originals_fields(folder):
    config = json.loads((folder() / "bert_config.json").read_text())
    assert config == {
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "max_position_embeddings": 512,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "type_vocab_size": 2,
        "vocab_size": 1001,
    }


def test_a_training_run_of_the_original(folder):
    """Its optimizer's slots and step count are named and left; of several checkpoints the latest is read."""
    run = folder()
    arrays = arrays_in(run)
    slots = {f"{name}/adam_{x}": np.zeros_like(array) for name, array in arrays.items() for x in "mv"}
    for file in run.glob("bert_model.ckpt*"):
        file.unlink()
    for step in (10, 20):
        moved = {name: array + np.float32(step) for name, array in arrays.items()}
        save(run / f"model.ckpt-{step}", moved | slots | {"global_step": np.int64(step)})
    _, head, params, report = tf1.read(run)
    assert head == HeadConfig("pretraining")
    assert report.unused == sorted([*slots, "global_step"]) and not report.missing
    bias = arrays["cls/seq_relationship/output_bias"]
    np.testing.assert_array_equal(params["cls"]["seq_relationship"]["bias"], bias + np.float32(20))
    _, _, params, _ = tf1.read(run / "model.ckpt-10")
    np.testing.assert_array_equal(params["cls"]["seq_relationship"]["bias"], bias + np.float32(10))
    (run / "checkpoint").unlink()
    with pytest.raises(InputError, match=r"bert: holds model.ckpt-10, model.ckpt-20; name one: .*/bert/model.ckpt-20"):
        tf1.read(run)


def test_a_head_of_the_original_is_known_by_its_variables(folder):
    """Without the field that we write, and with the pooler that it always has."""
    labels = tuple(f"LABEL_{i}" for i in range(3))
    assert tf1.read(folder("classifier", head=None))[1] == HeadConfig("sequence_classification", labels)
    assert tf1.read(folder("token_classification", head=None))[1] == HeadConfig("token_classification", labels)
    run = folder("question_answering")
    pooler = {"bert/pooler/dense/kernel": np.ones((128, 128)), "bert/pooler/dense/bias": np.ones(128)}
    save(run / "bert_model.ckpt", arrays_in(run) | pooler)
    _, head, params, report = tf1.read(run)
    assert head == HeadConfig("question_answering") and report.unused == sorted(pooler)
    assert_equal(params, case("question_answering").params)


def tagger(run) -> dict[str, np.ndarray]:
    """The variables that a tagger on the original's code leaves: a pooler too, and its optimizer's slots."""
    arrays = arrays_in(run)
    pooler = {"bert/pooler/dense/kernel": np.ones((128, 128)), "bert/pooler/dense/bias": np.ones(128)}
    return arrays | {name: x.astype(np.float32) for name, x in pooler.items()} | {"output_bias/adam_m": np.zeros(3)}


def test_a_tagger_is_one_where_it_is_said(folder, tmp_path, capsys):
    """Its variables are those of a classifier; its labels are nowhere."""
    run, expected = folder("token_classification", head=None), case("token_classification").params
    save(run / "bert_model.ckpt", tagger(run))
    assert tf1.read(run)[1].kind == "sequence_classification"
    command = ["import", str(run), str(tmp_path / "ours"), "--head", "token_classification"]
    assert main([*command, "--labels", "O", "B-PER"]) == 2
    assert "a model of the kind token_classification with 3 labels; 2 are named" in capsys.readouterr().err
    assert main([*command, "--labels", "O", "B-PER", "I-PER"]) == 0
    found = pretrained.read(tmp_path / "ours")
    assert found.head == HeadConfig("token_classification", ("O", "B-PER", "I-PER"))
    assert_equal(found.params, expected)
    with pytest.raises(InputError, match="no variable is called output_weights, so there is no token_classification"):
        tf1.read(folder("pretraining", name="other"), kind="token_classification")


def test_the_encoder_alone_whatever_stands_on_it(folder):
    """As of a tagger with a CRF; what would make it another encoder is refused."""
    run = folder("encoder")
    arrays = arrays_in(run)
    save(run / "bert_model.ckpt", arrays | {"crf_loss/transitions": np.zeros((3, 3)), "project/w": np.zeros((128, 3))})
    _, head, params, report = tf1.read(run, kind="encoder")
    assert head == HeadConfig("encoder") and report.unused == ["crf_loss/transitions", "project/w"]
    assert_equal(params, case("encoder").params)
    save(run / "bert_model.ckpt", arrays | {"bert/encoder/layer_0/adapter/dense/kernel": np.zeros((3, 3))})
    with pytest.raises(InputError, match="its encoder has arrays that BERT's hasn't.*layer_0/adapter/dense/kernel"):
        tf1.read(run)


def test_a_pointer_in_the_place_of_a_part(folder):
    run = folder()
    for name in ("bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "bert_config.json"):
        content = (run / name).read_bytes()
        (run / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0d\nsize 4\n")
        with pytest.raises(InputError, match=f"{name}: a Git LFS pointer"):
            tf1.read(run)
        (run / name).write_bytes(content)


def test_fields_of_the_original_that_ask_for_something_else(folder):
    fields = {"directionality": "bidi", "pooler_type": "first_token_transform", "pooler_fc_size": 768, "mine": 1}
    notes = tf1.read(folder(**fields))[3].notes
    assert notes[-1] == "fields of its config whose meaning isn't known, not used: mine"
    with pytest.raises(InputError, match="bert_config.json: directionality is 'left'"):
        tf1.read(folder(directionality="left"))


def test_what_is_missing_is_an_error_unless_allowed(folder):
    run = folder()
    arrays = arrays_in(run)
    lost = ["bert/encoder/layer_1/output/dense/kernel", "bert/pooler/dense/bias"]
    for name in lost:
        del arrays[name]
    save(run / "bert_model.ckpt", arrays)
    with pytest.raises(InputError, match=rf"bert_model.ckpt: lacks 2 .*{lost[0]}, {lost[1]}; bert-jax import --allow"):
        tf1.read(run)
    _, _, params, report = tf1.read(run, allow_missing=True)
    assert report.missing == lost
    kernels, expected = (
        p["bert"]["encoder"]["layer"]["output"]["dense"]["kernel"] for p in (params, case("pretraining").params)
    )
    np.testing.assert_array_equal(kernels[0], expected[0])
    assert 0.015 < kernels[1].std() < 0.02  # Fresh: 0.02, cut at two deviations.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 1}, "bert_config.json: num_hidden_layers is 1, the checkpoint has 2; this isn't its"),
        ({"num_hidden_layers": 3}, "bert_model.ckpt: lacks 16 parameters of the model: bert/encoder/layer_2/"),
        ({"vocab_size": 1024}, r"doesn't fit its config: .*word_embeddings \(1001, 128\), not \(1024, 128\)"),
        ({"hidden_size": 256}, r"doesn't fit its config: .* more$"),
        ({"intermediate_size": None}, "bert_config.json: lacks intermediate_size; it must be the one"),
        ({"vocab_size": "1001"}, "bert_config.json: vocab_size: is '1001', must be int"),
        ({"num_attention_heads": 3}, "bert_config.json: num_attention_heads: 3 doesn't divide hidden_size 128"),
        ({"hidden_dropout_prob": 2}, "bert_config.json: hidden_dropout_prob: is 2.0, must be at least 0 and below 1"),
        ({"hidden_act": "relu"}, "bert_config.json: hidden_act is 'relu'; there are gelu, gelu_new"),
    ],
)
def test_a_config_that_contradicts_the_weights_or_makes_no_sense(fields, message, folder):
    with pytest.raises(InputError, match=message):
        tf1.read(folder(**fields))


def test_a_head_that_makes_no_sense(folder):
    for head, message in [
        ("tagger", "head is 'tagger'"),
        ({"kind": "tagger"}, "must have a kind, one of"),
        ({"kind": "token_classification", "label": []}, r"head.label: no such field .* 'labels'"),
        ({"kind": "token_classification", "labels": ["a"]}, r"output_weights \(3, 128\), not \(1, 128\)"),
    ]:
        with pytest.raises(InputError, match=message):
            tf1.read(folder("classifier", head=head))


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def spoil(file):
    """One byte changed in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, spoil, lambda file: file.write_bytes(b""), lambda file: file.unlink()])
@pytest.mark.parametrize("file", ["bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_named(damage, file, folder):
    run = folder()
    damage(run / file)
    stated = r"(: damaged|: holds no checkpoint; its index, bert_m|/bert_model.ckpt.*: (damaged|empty))"
    with pytest.raises(InputError, match=f"bert{stated}"):
        tf1.read(run)


def test_a_missing_or_broken_config_is_named(folder):
    config = folder() / "bert_config.json"
    for content in ("[]", "{", "\udcff"):
        config.write_text(content, errors="surrogateescape")
        with pytest.raises(InputError, match="bert_config.json: damaged"):
            tf1.read(config.parent)
    config.unlink()
    with pytest.raises(InputError, match="bert_config.json: isn't there; .*copy that of the model it was trained from"):
        pretrained.read(config.parent)  # As the original leaves its --output_dir.


def test_an_epsilon_of_its_own_is_kept(tmp_path):
    one = case("encoder")
    model = dataclasses.replace(one.model, layer_norm_eps=1e-5)
    tf1.write(tmp_path, model, one.head, one.params)
    assert tf1.read(tmp_path)[0] == model
