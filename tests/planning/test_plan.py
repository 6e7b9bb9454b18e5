"""Plans: the reading of HLO against literals and XLA, the estimates by hand, and programs compiled for TPUs."""

import dataclasses
import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bert_jax.cli.main import main
from bert_jax.config import InputError, MeshConfig, ModelConfig, Phase, model_preset
from bert_jax.config.files import load_config
from bert_jax.devices.chips import CHIPS, GIB
from bert_jax.devices.memory import bytes_on_a_device
from bert_jax.devices.sharding import make_mesh
from bert_jax.models.attention import attention, segment_ids
from bert_jax.models.tpu_fused import longest_row
from bert_jax.planning import costs, hlo, phase, roofline
from bert_jax.planning.plan import _custom_call_lines, plan, with_vocabulary
from bert_jax.planning.search import meshes, search
from bert_jax.planning.topology import make_topology
from bert_jax.training.metrics import PEAK_FLOPS
from bert_jax.training.program import batch_shapes

needs_libtpu = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu: pip install '.[tpu]'")

# A loop of five (nine in twos), whose body takes one of eight matrices, multiplies it and adds over devices.
STATE = "(s32[]{:T(128)}, f32[8,128,64]{2,1,0:T(8,128)}, f32[64,256]{1,0:T(8,128)S(1)})"
LOOP = """HloModule test, is_scheduled=true

%fused (p0: f32[8,128,64], p1: s32[], p2: f32[64,256]) -> f32[128,256] {
  %p0 = f32[8,128,64]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %p2 = f32[64,256]{1,0:T(8,128)S(1)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  %taken = f32[1,128,64]{2,1,0:T(8,128)} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,128,64}
  %row = f32[128,64]{1,0:T(8,128)} bitcast(%taken)
  ROOT %product = f32[128,256]{1,0:T(8,128)} convolution(%row, %p2), dim_labels=bf_io->bf
}

%body (in: SHAPES) -> SHAPES {
  %in = STATE parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%in), index=0
  %stack = f32[8,128,64]{2,1,0:T(8,128)} get-tuple-element(%in), index=1
  %weights = f32[64,256]{1,0:T(8,128)S(1)} get-tuple-element(%in), index=2
  %out = f32[128,256]{1,0:T(8,128)} fusion(%stack, %i, %weights), kind=kOutput, calls=%fused, metadata={op_name="a(b)"}
  %sum = f32[128,256]{1,0:T(8,128)S(1)} all-reduce(%out), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  %two = s32[]{:T(128)} constant(2)
  %later = s32[]{:T(128)} add(%i, %two)
  ROOT %next = STATE tuple(%later, %stack, %weights)
}

%condition (at: SHAPES) -> pred[] {
  %at = STATE parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%at), index=0
  %end = s32[]{:T(128)} constant(9)
  ROOT %less = pred[]{:T(512)} compare(%n, %end), direction=LT
}

ENTRY %main (start: SHAPES) -> SHAPES {
  %start = STATE parameter(0)
  ROOT %loop = STATE while(%start), condition=%condition, body=%body
}
""".replace("STATE", STATE)


def test_what_a_loop_does_counts_as_often_as_it_runs():
    found = costs.costs(LOOP)
    assert found.flops == 5 * 2 * 128 * 64 * 256
    # One matrix and the product go through HBM, the index too; then the sum's operand. The weights don't. The
    # condition reads two integers and writes a truth; counting reads two and writes one.
    matrix, product = 128 * 64 * 4, 128 * 256 * 4
    assert found.bytes == 5 * (matrix + product + 4 + product + 9 + 12)
    assert found.collectives == [costs.Collective("all-reduce", product, (0, 1, 2, 3), 5, False)]
    assert costs.costs(LOOP, loops=False).flops == 2 * 128 * 64 * 256


def test_a_loop_of_unknown_length_is_no_guess():
    with pytest.raises(ValueError, match="how often the loop runs"):
        costs.costs(LOOP.replace("constant(9)", "constant({9})"))
    with pytest.raises(ValueError, match="HLO of an unknown form: "):
        costs.costs(LOOP.replace("condition=", "until="))


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("replica_groups={{0,2},{4,6},{1,3},{5,7}}", (0, 2)),
        ("replica_groups=[4,2]<=[8]", (0, 1)),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", (0, 2)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", (0, 4)),
        ("replica_groups=mesh['a'=8] {'a':(4)2}", (0, 1)),
        ("source_target_pairs={{0,0},{1,2},{2,1}}", (1, 2)),
    ],
)
def test_groups_of_devices_in_every_form(groups, first):
    assert hlo.group(f", channel_id=1, {groups}, use_global_device_ids=true") == first


def test_a_product_with_batches_is_a_dilated_convolution():
    line = "  %c = f32[16,12,512,512]{3,2,1,0} convolution(%a, %b), window={size=16x12 stride=15x11 lhs_dilate=16x12}, "
    instruction = hlo.instruction(line + "dim_labels=0b1f_0o1i->01bf")
    queries, keys = hlo.Array("bf16", (16, 512, 12, 64), True), hlo.Array("bf16", (16, 512, 12, 64), True)
    assert costs._convolution_flops(instruction, queries, keys) == 2 * 16 * 12 * 512 * 512 * 64


def test_flops_of_a_program_that_xla_compiled_here():
    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0].sum()

    x, weights = jnp.ones((48, 64)), jnp.ones((7, 64, 64))
    text = jax.jit(jax.grad(layers, argnums=1)).lower(x, weights).compile().as_text()
    # Forward once, backward for x and for the weights.
    assert costs.costs(text).flops == 3 * 7 * 2 * 48 * 64 * 64


def test_custom_calls_are_listed_and_counted_by_whoever_knows_them():
    program = jax.jit(lambda x: (jnp.linalg.cholesky(x @ x.T), jax.lax.top_k(x, 2)))
    text = program.lower(jnp.ones((16, 8))).compile().as_text()
    found, product = costs.costs(text), 2 * 16 * 8 * 16
    assert found.flops == product
    assert {c.target: c.flops for c in found.custom_calls} == {"lapack_spotrf_ffi": None, "TopK": 0.0}
    lines = "\n".join(_custom_call_lines(phase._custom_calls(found)))
    assert "lapack_spotrf_ffi x 1: NOT COUNTED" in lines and "without arithmetic: TopK x 1" in lines

    def known(operation, operands):
        return operands[0][0] ** 3 / 3 if operation.endswith("/cholesky") else None

    found = costs.costs(text, known=known)
    assert found.flops == product + 16**3 / 3
    (calls, _) = phase._custom_calls(found)
    assert calls == phase.CustomCalls("TopK", 1, 0.0)


def test_times_of_collectives_by_hand():
    chip, shape = CHIPS["v5e"], (4, 4, 1)
    places = [(x, y, 0) for x in range(4) for y in range(4)]

    def seconds(kind, group, size=16_000_000):
        return roofline.seconds_of(costs.Collective(kind, size, group, 1, False), chip, places, shape)

    # Along one axis of four, an open line of 50 GB/s: 3/4 of it, and three hops; summed, twice.
    assert seconds("all-gather", (0, 1, 2, 3)) == pytest.approx(12e6 / 50e9 + 3e-6)
    assert seconds("all-reduce", (0, 1, 2, 3)) == pytest.approx(24e6 / 50e9 + 6e-6)
    # Both axes: two links; from one slice to another, each chip's share of the network.
    assert seconds("reduce-scatter", tuple(range(16))) == pytest.approx(15e6 / 100e9 + 6e-6)
    assert seconds("slice all-reduce", ()) == pytest.approx(16e6 / 3.125e9)
    # Sixteen chips of a v5e, and cubes of a v5p, are closed to rings.
    assert roofline.closed(chip, (16, 8, 1), 16) and not roofline.closed(chip, (16, 8, 1), 8)
    assert roofline.closed(CHIPS["v5p"], (4, 4, 8), 4) and not roofline.closed(CHIPS["v5p"], (2, 4, 4), 4)


def test_a_step_waits_for_what_was_not_started_ahead():
    found = costs.Costs(
        [costs.Work(197e9, 0, 2), costs.Work(0, 819e6, 3)],  # 1 ms of products twice, 1 ms of bytes three times
        [
            costs.Collective("slice all-reduce", 3_125_000, (), 4, hidden) for hidden in (True, False)
        ],  # 1 ms, four times
        [],
    )
    times = roofline.times(found, CHIPS["v5e"], [], ())
    assert (times.compute, times.memory, times.chip) == pytest.approx((2e-3, 3e-3, 5e-3))
    assert (times.waiting, times.hidden, times.step) == pytest.approx((4e-3, 4e-3, 9e-3))


def test_peaks_stand_in_one_place():
    assert PEAK_FLOPS["TPU v5 lite"] == CHIPS["v5e"].peak_flops == 197e12
    assert {PEAK_FLOPS[kind] for kind in ("TPU v4", "TPU v5p", "TPU v6 lite")} == {275e12, 459e12, 918e12}


@pytest.mark.parametrize("format", ["sentence_pairs", "packed"])
def test_planned_batches_are_those_of_the_pipeline(corpus, config, tmp_path, format):
    from bert_jax.data.pipeline import batches
    from bert_jax.data.prepare import prepare

    config = dataclasses.replace(config, examples=dataclasses.replace(config.examples, format=format))
    real = next(batches(prepare(config, tmp_path / "examples"), config))
    planned = batch_shapes(config, config.phases[0], None)
    assert {n: (x.shape, x.dtype) for n, x in real.items()} == {n: (x.shape, x.dtype) for n, x in planned.items()}


def test_a_needed_amount_is_read_from_the_refusal():
    message = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (20.00G) ex"
    assert phase._needed(message, GIB) == 20 * GIB
    assert phase._needed("RESOURCE_EXHAUSTED: Used 17.50G of 15.75G hbm.", GIB) == 16.5 * GIB
    with pytest.raises(ValueError, match="how much"):
        phase._needed("RESOURCE_EXHAUSTED: no reason", 0)


def test_meshes_that_are_tried_hold_all_chips():
    assert meshes(1) == [MeshConfig(1, 1, 1)]
    assert all(m.data * m.fsdp * m.tensor == 32 for m in meshes(32)) and len(meshes(32)) == 5


def test_the_vocabulary_is_the_tokenizers(tmp_path):
    config = load_config("pretrain_base")
    assert with_vocabulary(config).model.vocab_size == 30_522
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    tokenizer = dataclasses.replace(config.tokenizer, path=str(tmp_path / "vocab.txt"))
    assert with_vocabulary(dataclasses.replace(config, tokenizer=tokenizer)).model.vocab_size == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["v9:2x2"], "no chip 'v9'; there are v4, v5e, v5p, v6e"),
        (["v5e"], "a v5e slice is v5e:AxB"),
        (["v5e:2x2x2"], "a v5e slice is v5e:AxB"),
        (["v5e:0x4"], "a v5e slice is v5e:AxB"),
        (["v5e:3x5"], "v5e comes in 1x1, 2x2"),
        (["v5e:16x32"], "v5e comes in 1x1, 2x2"),
        (["v5p:2x2"], "a v5p slice is v5p:AxBxC"),
        (["v5p:1x1x1"], "whole hosts of 2x2x1"),
        (["v4:16x16x32"], "at most 4,096 chips"),
        (["v5e:2x4", "--slices", "0"], "--slices 0: must be at least 1"),
        (["v5litepod-12"], "there is v5litepod-1, 4, 8, 16, 32, 64, 128, 256; or name a shape, as v5e:2x2"),
        (["v4:2x2x2", "--slices", "2"], "slices of v4 isn't published"),
        pytest.param(["v5e:2x4", "--phase", "2"], "--phase 2: the config has phases 0 to 1", marks=needs_libtpu),
        pytest.param(["v5e:2x4", "--json", "/no/such/plan.json"], "there is no folder /no/such", marks=needs_libtpu),
        pytest.param(["v5e:2x4", "--mesh.data", "3"], "mesh: 3 x 1 x 1 isn't the number of", marks=needs_libtpu),
        pytest.param(["v5e:4x4", "--phases.0.batch-size", "8"], "phases.0.batch_size: 8 isn't", marks=needs_libtpu),
        pytest.param(["v5e:2x4", "--mesh.tensor", "8"], "mesh.tensor: 8 doesn't divide", marks=needs_libtpu),
    ],
)
def test_bad_input_is_one_line(capsys, flags, message):
    model = ["--model.num-attention-heads", "6", "--model.hidden-size", "324"]
    assert main(["plan", "--config", "pretrain_base", *model, "--topology", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@needs_libtpu
@pytest.mark.parametrize(
    ("kind", "name", "chips"),
    [("v5litepod-8", "v5e:2x4", 8), ("v4-8", "v4:2x2x1", 4), ("v5p-16", "v5p:2x2x2", 8), ("v6e-1", "v6e:1x1", 1)],
)
def test_an_accelerator_type_is_its_usual_slice(kind, name, chips):
    topology = make_topology(kind)
    assert (topology.name, len(topology.devices)) == (name, chips)


def test_without_libtpu_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'bert-jax\[tpu\]'"):
        make_topology("v5e:2x4")


def tiny(**changes):
    """BERT-Tiny without dropout, whose random bits take most of the time to compile."""
    model = model_preset("tiny", vocab_size=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **changes)
    phases = (Phase(sequence_length=64, batch_size=64, steps=1000, max_predictions=8),)
    base = load_config("pretrain_base")
    optimizer = dataclasses.replace(base.optimizer, warmup_steps=10)
    return dataclasses.replace(base, model=model, phases=phases, optimizer=optimizer)


@needs_libtpu
def test_a_crash_of_the_compiler_is_told(monkeypatch, capsys):
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(phase, "COMPILE", [sys.executable, "-c", crash])
    (crashed,) = plan(tiny(), "v5e:2x2")
    assert crashed.refused == phase.CRASHED and not crashed.fits
    assert "DOESN'T COMPILE" in capsys.readouterr().out


@pytest.mark.long
@needs_libtpu
def test_base_on_eight_chips(tmp_path, capsys):
    """The real step, compiled for eight TPUs."""
    flags = ["--phase", "1", "--phases.1.batch-size", "32", "--json", str(tmp_path / "plan.json")]
    assert main(["plan", "--config", "pretrain_base", "--topology", "v5e:2x4", *flags]) == 0
    printed = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "plan.json").read_text())
    memory = found["memory"]
    assert found["remat"] == "dots"  # As is best on a TPU, though it is compiled on a CPU.
    # 110.1 million parameters and, in the padding to 30,720 words, 198 rows of 768 and of a bias; float32.
    parameters = 4 * (110_106_428 + 198 * 769)
    assert memory["parameters"] == parameters
    assert memory["optimizer"] == pytest.approx(2 * parameters, rel=1e-6)
    assert memory["hbm"] == 15.75 * GIB and found["fits"] and memory["total"] < 3 * GIB
    # Attention to 512 tokens, and 77 of them to predict: 588 million FLOPs a token, and 4 x 512 tokens on a chip.
    assert found["model_flops"] == pytest.approx(588e6 * 4 * 512, rel=0.01)
    # Attention's scores are computed again: 2 FLOPs each, to 512 tokens, in 12 layers 768 wide.
    again = 2 * 512 * 12 * 768 / 588e6
    assert found["compiled_flops"] / found["model_flops"] == pytest.approx(1 + again, abs=0.2 * again)
    # The sums of gradients go on behind the backward pass.
    assert found["times"]["waiting"] < 0.05 * found["times"]["hidden"]
    # Each gradient is summed over the copies: those of layers in bfloat16, of the vocabulary's matrix from both its
    # uses, in float32 and bfloat16; nothing else is.
    sums = [c for c in found["collectives"] if c["kind"] == "all-reduce"]
    layers, words = 85_054_464, 30_720 * 768
    assert sum(c["bytes"] * c["times"] for c in sums) == pytest.approx(2 * layers + 6 * words, rel=0.02)
    assert {c["axes"] for c in sums} == {"data"} and len(sums) == len(found["collectives"])
    assert found["hours"] == pytest.approx(found["times"]["step"] * 100_000 / 3600)
    assert "fits" in printed and "tokens/s" in printed and "Assumed" in printed


@pytest.mark.long
@needs_libtpu
def test_a_kernel_is_counted_by_its_shapes():
    """Two products in the forward pass, whose result is kept, and five in the backward pass."""
    (found,) = plan(tiny(), "v5e:2x4")
    (kernels,) = (c for c in found.custom_calls if c.flops != 0)
    rows, layers, heads = 64 // 8, 2, 2
    assert kernels.target == "tpu_custom_call" and kernels.times == layers * 2
    assert kernels.flops == layers * heads * rows * (2 + 5) * 2 * 64 * 64 * 64


@pytest.mark.long
@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:2x2", "v4:2x2x1", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_compiles_for_each_chip(topology, dtype):
    """Of rows of many lengths, heads of odd numbers and sizes, split over a mesh; with dropout."""
    mesh = make_mesh(MeshConfig(data=2, tensor=2), make_topology(topology).devices[:4])
    for length, heads, size in ((128, 12, 64), (512, 12, 64), (48, 4, 64), (100, 12, 32), (2048, 4, 64), (0, 8, 96)):
        config = ModelConfig(hidden_size=heads * size, num_attention_heads=heads, dtype=dtype, attention="tpu_fused")
        with jax.set_mesh(mesh):
            length = length or longest_row(config) // 8 * 8
        row = NamedSharding(mesh, PartitionSpec("data"))
        split = NamedSharding(mesh, PartitionSpec("data", "tensor"))
        x = jax.ShapeDtypeStruct((4, heads, length, size), dtype, sharding=split)
        mask = jax.ShapeDtypeStruct((4, length), jnp.int32, sharding=row)

        def total(query, key, value, mask, config=config):
            context = attention(query, key, value, segment_ids(mask), jax.random.key(0), config)
            return jnp.sum(context.astype(jnp.float32))

        with jax.set_mesh(mesh):
            jax.jit(jax.grad(total, (0, 1, 2))).lower(x, x, x, mask).compile()


@pytest.mark.long
@needs_libtpu
def test_sliced_parameters_leave_the_rows_where_they_are():
    """What goes over `fsdp` are parameters and their gradients: no chip gathers the activations of others."""
    config = dataclasses.replace(tiny(), mesh=MeshConfig(data=1, fsdp=8), phases=(Phase(64, 512, 1000, 8),))
    (sliced,) = plan(config, "v5e:2x4")
    (copied,) = plan(dataclasses.replace(config, mesh=MeshConfig(data=8)), "v5e:2x4")
    assert sliced.memory.parameters < copied.memory.parameters / 7
    rows = 4 * 512 * 64 * 128  # bytes of one activation of all of them
    assert max(t.bytes for t in sliced.collectives) < rows / 16
    assert sliced.compiled_flops == pytest.approx(copied.compiled_flops, rel=0.03)


@pytest.mark.long
@needs_libtpu
@pytest.mark.parametrize("config", ["pretrain_base", "pretrain_large"])
@pytest.mark.parametrize("topology", ["v5e:2x4", "v5e:16x16", "v4:2x2x2", "v5p:2x2x1", "v6e:2x4"])
def test_topologies(config, topology):
    """The whole batch of 256 at 512, with all defaults."""
    (found,) = plan(load_config(config), topology, phase=1)
    assert found.fits
    assert found.compiled_flops == pytest.approx(found.model_flops, rel=0.04)  # Some is computed again.


@pytest.mark.long
@needs_libtpu
def test_several_slices(capsys):
    (found,) = plan(tiny(), "v5e:2x2", slices=2)
    between = [t for t in found.collectives if t.axes == "slices"]
    # Within a slice a sum is divided among its four chips first.
    parameters = found.memory.parameters
    assert parameters / 16 < sum(t.bytes * t.times for t in between) <= parameters
    assert found.chips == 8


@pytest.mark.long
@needs_libtpu
def test_the_largest_batch_that_search_names_is_the_largest():
    config = dataclasses.replace(tiny(num_hidden_layers=12, dtype="bfloat16"), phases=(Phase(512, 256, 1000, 77),))
    topology = make_topology("v5e:2x2")
    plans = search(config, 0, topology)
    assert [p.fits for p in plans] == sorted((p.fits for p in plans), reverse=True)
    best = plans[0]
    pair = [p for p in plans if (p.mesh, p.remat) == (best.mesh, best.remat)]
    largest = max((p for p in pair if p.fits), key=lambda p: p.batch_size)
    assert any(not p.fits and p.batch_size == 2 * largest.batch_size for p in pair)
    for batch, fits in ((largest.batch_size, True), (2 * largest.batch_size, False)):
        changed = dataclasses.replace(
            config,
            mesh=MeshConfig(**best.mesh),
            model=dataclasses.replace(config.model, remat=best.remat),
            phases=(dataclasses.replace(config.phases[0], batch_size=batch),),
        )
        assert phase.plan_phase(changed, 0, topology).fits == fits


def test_bytes_on_a_chip_follow_the_shardings():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    array = jax.ShapeDtypeStruct((6, 5), jnp.bfloat16, sharding=sharding)
    assert bytes_on_a_device({"a": array, "b": array}) == 2 * 6 * 5 * 2
