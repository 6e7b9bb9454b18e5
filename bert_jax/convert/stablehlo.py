"""A program in StableHLO that runs wherever JAX does, without bert_jax: `model.stablehlo`, its weights and config.json.

    bert = jax.export.deserialize(Path("model.stablehlo").read_bytes()).call
    weights = safetensors.flax.load_file("weights.safetensors")
    bert(weights, input_ids, token_type_ids, attention_mask)  # int32 [batch, length] -> {name: float32}

The weights are an argument: as constants, each compiled shape would hold a copy, and take seconds to fold them.
"""

import dataclasses
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from safetensors.numpy import save

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.convert import huggingface
from bert_jax.convert.formats import Format
from bert_jax.models import kind_of, make_model

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS = "model.stablehlo", "weights.safetensors"


def write(folder: Path, model: ModelConfig, head: HeadConfig, params: dict) -> None:
    """Writes the program for any batch and any length that the model reads, on each of `PLATFORMS`.

    Outputs are named as transformers' and float32, computed with float32 products: those of TPUs and GPUs would round
    their inputs by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Contiguous: of a transposed array, safetensors would write the memory untransposed.
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    weights = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    dimensions = "batch, choices, length" if kind_of(head).choices else "batch, length"
    longest = [f"length <= {model.max_position_embeddings}"]  # Else JAX takes the last position for any beyond it.
    ids = jax.ShapeDtypeStruct(export.symbolic_shape(dimensions, constraints=longest), jnp.int32)
    with jax.default_matmul_precision("highest"):
        program = export.export(jax.jit(forward(model, head)), platforms=PLATFORMS)(shapes, ids, ids, ids)
    (folder / PROGRAM).write_bytes(program.serialize())
    (folder / WEIGHTS).write_bytes(save(weights))
    huggingface.write_config(folder, model, head)


def forward(model: ModelConfig, head: HeadConfig):
    """The function from (parameters by their paths, input_ids, token_type_ids, attention_mask) to named outputs."""
    module = make_model(
        dataclasses.replace(model, dtype="float32", remat="none", scan_unroll=1, attention="plain"), head
    )

    def outputs(weights, input_ids, token_type_ids, attention_mask):
        inputs = [input_ids, token_type_ids, attention_mask]
        if module.kind.predicts:  # Scores at all positions, not only masked ones.
            inputs.append(jnp.broadcast_to(jnp.arange(input_ids.shape[-1]), input_ids.shape))
        values = module.apply({"params": flax.traverse_util.unflatten_dict(weights, sep="/")}, *inputs)
        return module.kind.named(values, model)

    return outputs


def use(head: HeadConfig) -> list[str]:
    """`Format.use`."""
    return [
        "In this folder, with any batch and length, on a CPU, GPU or TPU, and without bert_jax:",
        """```python
from pathlib import Path

import jax.export
from safetensors.flax import load_file
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
bert = jax.export.deserialize(Path("model.stablehlo").read_bytes()).call
weights = load_file("weights.safetensors")
inputs = tokenizer(["One text.", "And another one."], padding=True, return_tensors="np")
outputs = bert(weights, inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
```

Each shape is compiled once; products are computed in float32 everywhere.""",
    ]


STABLEHLO = Format("stablehlo", write, use=use)
