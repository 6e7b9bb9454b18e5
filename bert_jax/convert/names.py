"""The names of parameters here, in Hugging Face's torch models, and in google-research/bert's checkpoints.

One table serves every direction: the encoder's names and the head's (`bert_jax.models.names`).
"""

from collections.abc import Callable, Iterator

import flax.traverse_util
import jax
import numpy as np

from bert_jax.config import HeadConfig, InputError, ModelConfig
from bert_jax.models import architecture_of, head_of, init_params, make_model, param_shapes
from bert_jax.models.names import Name, Scheme


def names(model: ModelConfig, head: HeadConfig, shapes: dict[str, jax.ShapeDtypeStruct]) -> list[Name]:
    """The names of a model's parameters, in the table's order. Raises `InputError` for a parameter without a name."""
    table = (*architecture_of(model).names, *head_of(model, head).names)
    if nameless := sorted(shapes.keys() - {name.path for name in table}):
        where = f"the names of the architecture {model.architecture} and of the head {head.kind} lack"
        raise InputError(f"{where} {', '.join(nameless)}; without them no other format is read or written")
    return [name for name in table if name.path in shapes]


def shapes_of(model: ModelConfig, head: HeadConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The path of each parameter of such a model, with its shape."""
    return flax.traverse_util.flatten_dict(param_shapes(make_model(model, head)), sep="/")


def fresh(model: ModelConfig, head: HeadConfig) -> dict[str, jax.Array]:
    """Freshly initialised parameters by their paths."""
    return flax.traverse_util.flatten_dict(init_params(make_model(model, head), 0), sep="/")


def to_arrays(params: dict, model: ModelConfig, head: HeadConfig, scheme: Scheme) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a tree of parameters by their names in the scheme, one after the other, float32."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    for name in names(model, head, flat):
        layers = range(model.num_hidden_layers) if name.in_layers else [None]
        for layer in layers:
            array = np.asarray(flat[name.path] if layer is None else flat[name.path][layer])
            array = array[: model.vocab_size] if name.padded else array
            yield name.name_in(scheme, layer), array.T if scheme in name.transposed else array


def array_shapes(model: ModelConfig, head: HeadConfig, scheme: Scheme) -> dict[str, tuple[int, ...]]:
    """The shapes that the scheme's arrays must have, by their names."""
    shapes, by_name = shapes_of(model, head), {}
    for name in names(model, head, shapes):
        shape = shapes[name.path].shape[1 if name.in_layers else 0 :]
        shape = (model.vocab_size, *shape[1:]) if name.padded else shape
        shape = shape[::-1] if scheme in name.transposed else shape
        for layer in range(model.num_hidden_layers) if name.in_layers else [None]:
            by_name[name.name_in(scheme, layer)] = shape
    return by_name


def to_params(read: Callable[[str], np.ndarray | None], model: ModelConfig, head: HeadConfig, scheme: Scheme) -> dict:
    """The tree of parameters. `read` is called once for each name of the scheme, for an array of `array_shapes`' shape.

    Where it returns None, the parameter keeps its fresh value: the caller has asked for that.
    """
    shapes, flat = shapes_of(model, head), {}
    new: dict[str, jax.Array] = {}
    for name in names(model, head, shapes):
        array = np.zeros(shapes[name.path].shape, np.float32)
        for layer in range(model.num_hidden_layers) if name.in_layers else [None]:
            part = array if layer is None else array[layer]
            value = read(name.name_in(scheme, layer))
            if value is None:
                new = new or fresh(model, head)
                value = np.asarray(new[name.path] if layer is None else new[name.path][layer])
            elif scheme in name.transposed:
                value = value.T
            part[: len(value)] = value
        flat[name.path] = array
    return flax.traverse_util.unflatten_dict(flat, sep="/")
