"""A graph in ONNX, made node by node: it runs in onnxruntime and other runtimes, at any batch and length.

Weights keep the names of Hugging Face's torch models. Those of products are stored as they are multiplied, [in, out],
with .T after their names: quantisers take only products with an initializer.
Shapes in comments: B batch, C choices, S sequence, N heads, D = H / N, H hidden.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bert_jax.config import HeadConfig, InputError, ModelConfig
from bert_jax.convert import huggingface, names
from bert_jax.convert.formats import Format
from bert_jax.models import architecture_of, head_of, kind_of
from bert_jax.models.attention import MASK_ADDER

if TYPE_CHECKING:
    from onnx import NodeProto

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
OPSET = 17  # The first with LayerNormalization.
# A protocol buffer holds less than 2 GiB; the weights of a larger model lie in a file beside it.
LARGEST_FILE = (1 << 31) - (1 << 24)


def write(folder: Path, model: ModelConfig, head: HeadConfig, params: dict) -> None:
    """Writes model.onnx and config.json, and model.onnx.data where the weights don't fit into model.onnx.

    Inputs are int64 [batch, sequence] (multiple choice: [batch, choices, sequence]), outputs float32; all are named as
    in Hugging Face's exports. A classifier's labels are in the metadata, as JSON. Raises `InputError` where the package
    onnx is missing.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise InputError("--format onnx needs the package onnx; pip install 'bert-jax[onnx]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(names.to_arrays(params, model, head, "hf"))
    external = sum(array.nbytes for array in weights.values()) > LARGEST_FILE
    if external:
        (folder / "model.onnx.data").unlink(missing_ok=True)  # onnx would append to it.
    proto = _model(model, head, weights)
    onnx.save_model(proto, folder / "model.onnx", save_as_external_data=external, location="model.onnx.data")
    huggingface.write_config(folder, model, head)


def _model(model: ModelConfig, head: HeadConfig, weights: dict[str, np.ndarray]):
    from onnx import TensorProto, helper, numpy_helper

    axes = ["batch", "choices", "sequence"] if kind_of(head).choices else ["batch", "sequence"]
    graph = Graph(model, head, weights)
    outputs = graph.outputs()
    for name, (value, _) in outputs.items():
        graph.node("Identity", value, output=name)
    proto = helper.make_graph(
        graph.nodes,
        "bert",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in INPUTS],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    # Not the newest version of the file format, which older runtimes refuse.
    version = helper.find_min_ir_version_for([opset])
    made = helper.make_model(proto, producer_name="bert_jax", opset_imports=[opset], ir_version=version)
    for name, array in graph.initializers.items():  # Only now: each of the functions above copies what it is given.
        made.graph.initializer.add().CopyFrom(numpy_helper.from_array(array, name))
    if head.labels:
        helper.set_model_props(made, {"labels": json.dumps(head.labels)})
    return made


class Graph:
    """Nodes and initializers. Each method adds what its name says, and returns the name of the value it makes."""

    def __init__(self, model: ModelConfig, head: HeadConfig, weights: dict[str, np.ndarray]):
        self.config, self.head, self.weights = model, head, weights
        self.kind, self.name = head_of(model, head), architecture_of(model).name
        self.word_embeddings = f"{self.name}.embeddings.word_embeddings.weight"
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes) -> str:
        from onnx import helper

        name = output or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def initializer(self, name: str, value: np.ndarray) -> str:
        self.initializers[name] = value
        return name

    def weight(self, name: str) -> str:
        return self.initializer(name, self.weights[name])

    def kernel(self, name: str) -> str:
        """The weight transposed, [out, in] -> [in, out]."""
        return self.initializer(f"{name}.T", self.weights[name].T)

    def number(self, value: float) -> str:
        return self.initializer(str(value), np.array(value, np.float32))

    def index(self, value: int) -> str:
        return self.initializer(str(value), np.array(value, np.int64))

    def integers(self, *values: int) -> str:
        return self.initializer(str(list(values)), np.array(values, np.int64))

    def pick(self, x: str, i: int, axis: int) -> str:
        """The i-th element along an axis; the axis is removed."""
        return self.node("Gather", x, self.index(i), axis=axis)

    def outputs(self) -> dict[str, tuple[str, list]]:
        """The outputs of the head's kind: name -> value, shape."""
        ids: Sequence[str] = INPUTS
        if self.kind.choices:  # [B, C, S] -> [B C, S]
            length = self.node("Shape", INPUTS[0], start=2)
            shape = self.node("Concat", self.integers(-1), length, axis=0)
            ids = [self.node("Reshape", name, shape) for name in INPUTS]
        architecture = architecture_of(self.config)
        if architecture.graph is None:
            raise InputError(f"--format onnx: {architecture.title} has no graph; choose another format")
        return self.kind.graph(self, self.head, architecture.graph(self, *ids))

    def batch_and_choices(self) -> str:
        """The sizes of the inputs' first two axes."""
        return self.node("Shape", INPUTS[0], end=2)

    def encoder(self, input_ids: str, token_type_ids: str, attention_mask: str) -> str:
        visible = self.node("Cast", attention_mask, to=1)  # float32
        adder = self.node("Mul", self.node("Sub", self.number(1.0), visible), self.number(MASK_ADDER))
        adder = self.node("Unsqueeze", adder, self.integers(1, 2))  # [B, S] -> [B, 1, 1, S]
        x = self.embeddings(input_ids, token_type_ids)
        for i in range(self.config.num_hidden_layers):
            x = self.layer(x, adder, f"{self.name}.encoder.layer.{i}")
        return x

    def embeddings(self, input_ids: str, token_type_ids: str) -> str:
        at = f"{self.name}.embeddings"
        words = self.words(input_ids)
        types = self.node("Gather", self.weight(f"{at}.token_type_embeddings.weight"), token_type_ids)
        length = self.pick(self.node("Shape", input_ids), 1, axis=0)
        first = self.config.position_offset
        numbers = self.node("Range", self.index(first), self.node("Add", length, self.index(first)), self.index(1))
        positions = self.node("Gather", self.weight(f"{at}.position_embeddings.weight"), numbers)
        return self.norm(self.node("Add", self.node("Add", words, types), positions), f"{at}.LayerNorm")

    def words(self, input_ids: str) -> str:
        if not self.kind.predicts:
            return self.node("Gather", self.weight(self.word_embeddings), input_ids)
        # The transposed table of the output's product, so that the file has it once: [H, V] -> [H, B, S] -> [B, S, H].
        words = self.node("Gather", self.kernel(self.word_embeddings), input_ids, axis=1)
        return self.node("Transpose", words, perm=[1, 2, 0])

    def layer(self, x: str, adder: str, at: str) -> str:
        x = self.residual(self.attention(x, adder, f"{at}.attention.self"), x, f"{at}.attention.output")
        return self.residual(self.gelu(self.dense(x, f"{at}.intermediate.dense")), x, f"{at}.output")

    def residual(self, x: str, residual: str, at: str) -> str:
        return self.norm(self.node("Add", self.dense(x, f"{at}.dense"), residual), f"{at}.LayerNorm")

    def attention(self, x: str, adder: str, at: str) -> str:
        heads = self.config.num_attention_heads
        width = self.config.hidden_size // heads
        split = self.integers(0, 0, heads, width)  # [B, S, H] -> [B, S, N, D]
        query, key, value = (
            self.node("Transpose", self.node("Reshape", self.dense(x, f"{at}.{name}"), split), perm=order)
            for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        # [B, N, S, D] x [B, N, D, S] -> [B, N, S, S]
        scores = self.node("Div", self.node("MatMul", query, key), self.number(math.sqrt(width)))
        probabilities = self.node("Softmax", self.node("Add", scores, adder), axis=-1)
        # [B, N, S, S] x [B, N, S, D] -> [B, N, S, D] -> [B, S, H]
        context = self.node("Transpose", self.node("MatMul", probabilities, value), perm=[0, 2, 1, 3])
        return self.node("Reshape", context, self.integers(0, 0, self.config.hidden_size))

    def pooler(self, hidden: str) -> str:
        return self.node("Tanh", self.dense(self.pick(hidden, 0, axis=1), f"{self.name}.pooler.dense"))

    def dense(self, x: str, at: str) -> str:
        return self.product(x, f"{at}.weight", f"{at}.bias")

    def product(self, x: str, weights: str, bias: str) -> str:
        return self.node("Add", self.node("MatMul", x, self.kernel(weights)), self.weight(bias))

    def norm(self, x: str, at: str) -> str:
        scale, bias = self.weight(f"{at}.weight"), self.weight(f"{at}.bias")
        return self.node("LayerNormalization", x, scale, bias, epsilon=self.config.layer_norm_eps)

    def gelu(self, x: str) -> str:
        if self.config.hidden_act == "gelu":
            s = self.node("Erf", self.node("Div", x, self.number(math.sqrt(2))))
        else:
            cube = self.node("Mul", self.node("Pow", x, self.number(3.0)), self.number(0.044715))
            s = self.node("Tanh", self.node("Mul", self.node("Add", x, cube), self.number(math.sqrt(2 / math.pi))))
        return self.node("Mul", self.node("Mul", x, self.number(0.5)), self.node("Add", s, self.number(1.0)))


def use(head: HeadConfig) -> list[str]:
    """`Format.use`."""
    return [
        "In this folder, with any batch and length:",
        """```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
session = onnxruntime.InferenceSession("model.onnx")
inputs = tokenizer(["One text.", "And another one."], padding=True, return_tensors="np")
outputs = session.run(None, dict(inputs))
```""",
    ]


ONNX = Format("onnx", write, use=use)
