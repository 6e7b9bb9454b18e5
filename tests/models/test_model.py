"""The model against transformers' torch BERT with the same weights; parameter counts of every size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.extend.random import threefry_2x32
from torch_bert import in_our_names, inputs, reference

from bert_jax.config import ExamplesConfig, HeadConfig, ModelConfig, OptimizerConfig, PretrainConfig, model_preset
from bert_jax.data import pipeline
from bert_jax.data.prepare import prepare
from bert_jax.devices.sharding import path_name
from bert_jax.models import architecture_of, dropout, layers, losses, make_model, param_shapes
from bert_jax.models.model import MODEL_INPUTS, PACKED_INPUTS
from bert_jax.objectives import HeadObjective
from bert_jax.training import steps
from bert_jax.training.optimizer import make_optimizer, schedule
from bert_jax.training.optimizers import decayed

MODEL = ModelConfig(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=48,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


@pytest.fixture(scope="module")
def batches(examples, config):
    """50 batches of real examples, padding and short rows among them."""
    found = [
        batch for _, batch in zip(range(50), pipeline.batches(examples, with_phase(config, steps=50)), strict=False)
    ]
    assert any((batch["attention_mask"] == 0).any() for batch in found)
    return found


def with_phase(config: PretrainConfig, **changes) -> PretrainConfig:
    return dataclasses.replace(config, phases=(dataclasses.replace(config.phases[0], **changes),))


@pytest.fixture(scope="module", params=["gelu", "gelu_tanh"])
def pair(request, examples):
    """Our model with its parameters, and torch's with the same."""
    model = dataclasses.replace(MODEL, vocab_size=examples.tokenizer.vocab_size, hidden_act=request.param)
    theirs = reference(model)
    state = {name: parameter.clone() for name, parameter in theirs.state_dict().items()}
    return make_model(model, HeadConfig("pretraining")), in_our_names(state, model.num_hidden_layers), theirs


def loss(model, params, batch):
    return losses.means(HeadObjective(model).sums(params, (), batch))["loss"]


def test_logits(pair, batches):
    ours, params, theirs = pair
    batch = batches[0]
    mlm, nsp = jax.jit(ours.apply)({"params": params}, *(batch[name] for name in MODEL_INPUTS))
    with torch.no_grad():
        expected = theirs(**inputs(batch))
    at = torch.tensor(batch["masked_lm_positions"], dtype=torch.long)
    logits = expected.prediction_logits[torch.arange(len(at))[:, None], at]
    assert np.abs(mlm[..., : ours.config.vocab_size] - logits.numpy()).max() < 1e-4
    assert np.abs(nsp - expected.seq_relationship_logits.numpy()).max() < 1e-4


def test_loss_and_gradients(pair, batches):
    ours, params, theirs = pair
    value, grads = jax.jit(jax.value_and_grad(lambda p: loss(ours, p, batches[0])))(params)
    theirs.zero_grad()
    expected = theirs(**inputs(batches[0])).loss
    expected.backward()
    assert abs(float(value) - expected.item()) < 1e-5
    theirs_grads = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected_grads = in_our_names(theirs_grads, ours.config.num_hidden_layers)
    global_norm = float(optax.tree.norm(grads))

    def compare(path, ours, theirs):
        if path_name(path).endswith("key/bias"):  # Adds the same to every score of a query: the true gradient is 0.
            assert np.linalg.norm(ours) < 1e-6 * global_norm
        else:
            # Stacked layers are parameters each.
            layers = zip(ours, theirs, strict=True) if "layer" in path_name(path).split("/") else [(ours, theirs)]
            for mine, other in layers:
                assert np.linalg.norm(mine - other) < 1e-4 * np.linalg.norm(other), path_name(path)

    jax.tree_util.tree_map_with_path(compare, grads, expected_grads)


def test_fifty_steps_of_adamw(pair, batches):
    ours, params, theirs = pair
    decay = "from_zero" if ours.config.hidden_act == "gelu" else "from_warmup"
    start = {name: value.clone() for name, value in theirs.state_dict().items()}
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=10, decay=decay)
    optimizer = make_optimizer(config)
    state = {"params": jax.tree.map(jnp.array, params), "step": jnp.zeros((), jnp.int32)}
    state["opt_state"] = optimizer.init(state["params"])
    train_step, rate = jax.jit(steps.make_train_step(HeadObjective(ours), optimizer)), schedule(config, 60)

    named = list(theirs.named_parameters())
    plain = [p for name, p in named if name.endswith("bias") or "LayerNorm" in name]
    weights = [p for name, p in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1.0, betas=(config.b1, config.b2), eps=config.eps)
    for step, batch in enumerate(batches):
        state, sums = train_step(state, batch, 0, rate)
        expected = theirs(**inputs(batch)).loss
        assert abs(float(losses.means(sums)["loss"]) - expected.item()) < 1e-3
        adamw.zero_grad()
        expected.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), config.clip_norm)
        for group in adamw.param_groups:
            group["lr"] = float(rate(step))
        adamw.step()
    theirs.load_state_dict(start)


def abstract_params(model: ModelConfig, kind: str = "pretraining"):
    return param_shapes(make_model(model, HeadConfig(kind)))


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("size", "encoder"),
    [
        # Counted by transformers' BertModel, and Base's published.
        ("tiny", 4_385_920),
        ("mini", 11_170_560),
        ("small", 28_763_648),
        ("medium", 41_373_184),
        ("base", 109_482_240),
        ("large", 335_141_888),
    ],
)
def test_parameter_counts(size, encoder):
    model = model_preset(size, vocab_size=30_522)
    filled_up = (30_720 - 30_522) * model.hidden_size  # To a multiple of 256.
    assert count(abstract_params(model)["bert"]) == encoder + filled_up


def test_base_with_heads_and_without_next_sentence():
    base = model_preset("base", vocab_size=30_522)
    filled_up = (30_720 - 30_522) * (768 + 1)
    assert count(abstract_params(base)) == 110_106_428 + filled_up
    without = abstract_params(base, "masked_lm")
    assert count(without) == 110_106_428 + filled_up - (768 * 768 + 768) - (768 * 2 + 2)


def test_bfloat16_keeps_parameters_and_logits_in_float32(pair, batches):
    ours, params, _ = pair
    model = make_model(dataclasses.replace(ours.config, dtype="bfloat16"), HeadConfig("pretraining"))
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract_params(model.config))} == {jnp.dtype("float32")}
    arguments = [batches[0][name] for name in MODEL_INPUTS]
    mlm, nsp = jax.jit(model.apply)({"params": params}, *arguments)
    exact, _ = jax.jit(ours.apply)({"params": params}, *arguments)
    assert mlm.dtype == nsp.dtype == jnp.float32
    mlm, exact = (logits[..., : model.config.vocab_size] for logits in (mlm, exact))
    error = np.abs(mlm - exact).max()
    assert 0 < error < 0.05 * np.abs(exact).max()


def test_the_slope_of_gelu_in_bfloat16():
    """That of torch, for the same numbers in float64, to the precision of bfloat16."""
    x = jnp.linspace(-8, 8, 999, dtype=jnp.bfloat16)
    wide = torch.tensor(np.asarray(x, np.float64), requires_grad=True)
    torch.nn.functional.gelu(wide).sum().backward()
    slope = jax.grad(lambda x: jnp.sum(layers.gelu(x).astype(jnp.float32)))(x)
    np.testing.assert_allclose(np.asarray(slope, np.float64), wide.grad.numpy(), rtol=2**-7, atol=1e-6)


def test_dropout_is_drawn_from_the_key_alone(pair, batches):
    ours, params, _ = pair
    model = make_model(dataclasses.replace(ours.config, hidden_dropout_prob=0.1), HeadConfig("pretraining"))
    sums = jax.jit(lambda key: HeadObjective(model).sums(params, (), batches[0], key)["mlm_loss"])
    first, again, other = (float(sums(jax.random.key(seed))) for seed in (0, 0, 1))
    assert first == again != other


def test_what_is_computed_again_changes_neither_loss_nor_gradient(pair, batches):
    """With dropout: the same masks are drawn the second time."""
    ours, params, _ = pair
    if ours.config.hidden_act == "gelu":
        ways = [("attention", 1), ("dots", 1), ("full", 3)]
    else:
        ways = [("dots", 3), ("full", 1)]
    kept = dataclasses.replace(ours.config, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)

    def gradients(config):
        model = make_model(config, HeadConfig("pretraining"))

        def loss(params):
            return losses.means(HeadObjective(model).sums(params, (), batches[0], jax.random.key(3)))["loss"]

        return jax.jit(jax.value_and_grad(loss)).lower(params).compile()

    expected = gradients(kept)
    loss, kept_gradients = expected(params)
    for remat, unroll in ways:
        again = gradients(dataclasses.replace(kept, remat=remat, scan_unroll=unroll))
        other_loss, other_gradients = again(params)
        assert float(other_loss) == pytest.approx(float(loss), rel=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), kept_gradients, other_gradients
        )
        if unroll == 1:  # Unrolled, a small model on a CPU has little to save.
            temporaries = [compiled.memory_analysis().temp_size_in_bytes for compiled in (expected, again)]
            assert temporaries[1] < temporaries[0], remat


def test_the_rows_that_fill_up_the_vocabulary_stay_zero(examples, config, batches):
    model = make_model(dataclasses.replace(MODEL, vocab_size=examples.tokenizer.vocab_size), HeadConfig("pretraining"))
    optimizer = make_optimizer(dataclasses.replace(config.optimizer, name="lamb"))
    state = jax.jit(lambda: steps.init_state(model, optimizer, 0))()
    state, _ = jax.jit(steps.make_train_step(HeadObjective(model), optimizer))(
        state, batches[0], 0, schedule(config.optimizer, 30)
    )
    table = state["params"]["bert"]["embeddings"]["word_embeddings"]["embedding"]
    assert table.shape == (256, 64) and examples.tokenizer.vocab_size == 200
    assert not np.any(table[200:]) and np.all(np.any(table[:200], axis=1))
    assert not np.any(state["params"]["cls"]["predictions"]["output_bias"][200:])


def test_padding_changes_nothing(pair, batches):
    ours, params, _ = pair
    batch = batches[0]
    padded = dict(batch)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        padded[name] = np.pad(batch[name], [(0, 0), (0, 16)])
    of_batch = jax.jit(functools.partial(loss, ours, params))
    assert abs(float(of_batch(batch)) - float(of_batch(padded))) < 1e-5


def test_packed_texts_get_the_logits_of_rows_of_their_own(pair, config, tmp_path):
    """Each text alone, without padding, in a model that is given neither positions nor sequence ids."""
    ours, params, _ = pair
    config = dataclasses.replace(config, examples=ExamplesConfig("packed"))
    config = with_phase(config, sequence_length=48, batch_size=8, max_predictions=7)
    batch = next(pipeline.batches(prepare(config, tmp_path / "packed"), config))
    model = make_model(ours.config, HeadConfig("masked_lm"))
    inputs = [batch[name] for name in MODEL_INPUTS]
    packed = {name: batch[name] for name in PACKED_INPUTS}
    apply = jax.jit(model.apply)
    logits = apply({"params": params}, *inputs, **packed)
    compared = 0
    for row, sequence in zip(*np.nonzero(batch["position_ids"] == 0), strict=True):
        if compared == 8:  # Each length is compiled.
            break
        text = batch["sequence_ids"][row] == batch["sequence_ids"][row, sequence]
        mine = text[batch["masked_lm_positions"][row]] & (batch["masked_lm_weights"][row] > 0)
        if batch["sequence_ids"][row, sequence] and mine.any():
            alone = batch["input_ids"][row][text][None]
            at = batch["masked_lm_positions"][row][mine][None] - sequence
            expected = apply({"params": params}, alone, 0 * alone, 1 + 0 * alone, at)
            assert np.abs(logits[row, mine] - expected[0]).max() < 1e-5
            compared += 1
    assert compared == 8
    mixed = apply({"params": params}, *inputs)
    assert np.abs(mixed - logits).max() > 0.1
    sums = jax.jit(HeadObjective(model).sums)(params, (), batch)
    assert float(sums["mlm_loss"]) == pytest.approx(
        float(model.kind.sums(model.head, logits, batch)["mlm_loss"]), rel=1e-5
    )


def test_the_sizes_of_presets_are_heads_of_64():
    for size in ("tiny", "base", "large"):
        model = model_preset(size)
        assert model.hidden_size // model.num_attention_heads == 64
        assert model.intermediate_size == 4 * model.hidden_size


def test_decay_spares_layer_norm_and_biases():
    mask = jax.tree_util.tree_flatten_with_path(decayed(abstract_params(model_preset("tiny", vocab_size=100))))[0]
    spared = {path_name(path).split("/")[-1] for path, value in mask if not value}
    assert spared == {"bias", "scale", "output_bias"}
    assert sum(value for _, value in mask) == 3 + 6 + 3  # Embeddings, a layer's products, pooler and heads.


def test_model_flops_are_those_the_compiler_counts():
    """Products dominate where the model is wide; XLA counts a scanned layer once, so the layers are unrolled."""
    model = model_preset("small", vocab_size=1000, num_hidden_layers=2, scan_unroll=2, max_position_embeddings=64)
    bert, (batch, length, predictions) = make_model(model, HeadConfig("pretraining")), (4, 64, 8)
    shape = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    arguments = [shape, shape, shape, jax.ShapeDtypeStruct((batch, predictions), jnp.int32)]
    gradient = jax.jit(jax.grad(lambda params, *inputs: jnp.sum(bert.apply({"params": params}, *inputs)[0])))
    counted = gradient.lower(abstract_params(model), *arguments).compile().cost_analysis()["flops"]
    ours = architecture_of(model).flops_per_token(model, length, predictions) * batch * length
    assert 0.85 < ours / counted < 1.02


def test_dropout_draws_by_threefry_at_its_rate():
    """Against JAX's own Threefry; and what it keeps, scaled, has the mean of what came in."""
    words = jnp.arange(10, dtype=jnp.uint32)
    ours = jnp.concatenate(dropout.threefry(jnp.array([7, 9], jnp.uint32), words[:5], words[5:]))
    assert (ours == threefry_2x32(jnp.array([7, 9], jnp.uint32), words)).all()
    x = jnp.ones((64, 999))
    draw = lambda seed: dropout.Dropout(0.1).apply({}, x, False, rngs={"dropout": jax.random.key(seed)})  # noqa: E731
    kept = np.array([np.asarray(draw(seed)) for seed in range(2)])
    assert set(np.unique(kept)) == {np.float32(0), np.float32(65536 / (65536 - 6554))}
    spread = 4 * np.sqrt(0.1 * 0.9 / kept.size)
    assert np.mean(kept == 0) == pytest.approx(0.1, abs=spread)
    # Neither rows, columns nor seeds are alike.
    rows = kept[0] == 0
    for other in (kept[1] == 0, np.roll(rows, 1, 0), np.roll(rows, 1, 1), np.roll(rows, 250, 1)):
        assert abs(np.corrcoef(rows.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(rows.size)
    assert dropout.Dropout(0.1).apply({}, x, True) is x
