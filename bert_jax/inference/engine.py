"""The one way to run texts through a model: in rows of several texts, on any mesh, in any number of processes."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import InputError
from bert_jax.data import packing
from bert_jax.data.tokenizers import PAD, Tokenizer
from bert_jax.devices import sharding
from bert_jax.devices.compiling import jitted
from bert_jax.devices.precision import computed
from bert_jax.models import Model, forward, in_compute_type

Batch = dict[str, Any]
# (length of the rows, batch) -> an array, or a tree of arrays, whose first axis is the rows. It isn't waited for.
Compute = Callable[[int, Batch], Any]
Each = Literal["text", "token", "prediction"]
# Where a text's values are in an output: its row, and the index or slice within the row.
Index = tuple[int, int | slice]

# Arrays are padded to a multiple of this length, and to a power of two rows, so that few shapes are compiled.
LENGTH_STEP = 32
# Positions in a batch on a device. A CPU is as fast in its caches with few; an accelerator needs many to be busy.
POSITIONS = {"cpu": 1024}
POSITIONS_ELSEWHERE = 32_768


@functools.lru_cache(maxsize=8)
def _forward(model: Model, mesh: Mesh) -> Callable[[int], jax.stages.Wrapped]:
    return jitted(functools.partial(forward, model), mesh, model.config.dtype)


@dataclasses.dataclass(frozen=True)
class Engine:
    """A model on a mesh, and the tokenizer of its texts.

    In a run of several processes all call it with the same texts, and each gets all results.
    """

    model: Model
    params: Any
    """The parameters on the mesh; their shapes and shardings suffice for `lowered`."""
    mesh: Mesh
    tokenizer: Tokenizer

    @classmethod
    def with_params(cls, model: Model, params: Any, mesh: Mesh, tokenizer: Tokenizer) -> "Engine":
        """Puts parameters from the host onto the mesh, in the types in which its devices compute with them."""
        model = model.clone(config=computed(model.config, mesh.devices.flat[0].platform))
        params = in_compute_type(model.config, params)
        shardings = sharding.param_shardings(mesh, params, model.logical_axes)
        return cls(model, sharding.put(params, shardings), mesh, tokenizer)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest text that the model reads."""
        return self.model.config.max_position_embeddings

    def forward(self, length: int, batch: Batch) -> Any:
        """The head's outputs for a batch on the mesh, float32."""
        return _forward(self.model, self.mesh)(length)(self.params, batch)

    def logits(self, texts: Sequence[packing.Text], **how: Any) -> list[np.ndarray]:
        """The head's output for each text, without padding: [labels], [tokens, labels], [tokens, 2] or [choices].

        Args:
          texts: ids and token types of each.
          how: further arguments of `outputs`.
        """
        kind = self.model.kind
        return self.outputs(self.forward, texts, kind.outputs[0].each, choices=kind.choices, **how)

    def outputs(
        self,
        compute: Compute,
        texts: Sequence[packing.Text],
        each: Each = "text",
        masked: Sequence[Sequence[int]] = (),
        choices: bool = False,
        positions: int | None = None,
        longest: int | None = None,
        done: Callable[[int], Any] = lambda texts: None,
    ) -> list[Any]:
        """What a function computes for each text, in the texts' order. The next batch runs while one is fetched.

        Args:
          compute: makes an array of a batch, or a tree of arrays, with a first axis of rows.
          texts: ids and token types of each.
          each: what the second axis is: the texts of a row, its tokens, or its masked positions.
          masked: the masked positions of each text, from which the batch gets its `masked_lm_positions`.
          choices: whether the texts are of multiple choice, and the batch's arrays have an axis for the choices.
          positions: about how many positions a batch has (None: 1,024 on a CPU, 32,768 on each device elsewhere).
          longest: the length of the longest rows (None: as many tokens as the model reads).
          done: called after each batch with the number of its texts.

        Raises:
          InputError: a text is longer than a row, or has an id that the model has no row for.
        """
        results: list[Any] = [None] * len(texts)

        def fetch(indices: dict[int, Index], output: Any) -> None:
            values = jax.tree.map(np.asarray, output)
            for text, index in indices.items():
                # A copy, as a view would hold the outputs of the whole batch.
                results[text] = jax.tree.map(lambda value, index=index: np.array(value[index]), values)
            done(len(indices))

        pad_id = self.tokenizer.special_ids[PAD]
        lengths = packing.lengths_of(texts)
        under_way = None
        for rows in self._rows(lengths, positions, longest):
            placements = list(packing.placed(rows.texts, lengths))
            batch = packing.fill(texts, placements, rows.count, rows.length, pad_id, choices)
            self.check_ids(batch["input_ids"], batch["token_type_ids"])
            indices: dict[int, Index]
            if each == "prediction":
                batch["masked_lm_positions"], indices = _masked_positions(placements, masked, rows.count)
            elif each == "token":
                indices = {p.text: (p.row, slice(p.start, p.start + lengths[p.text])) for p in placements}
            else:
                indices = {p.text: (p.row, p.slot) for p in placements}
            started = indices, compute(rows.length, self.on_mesh(batch))
            if under_way:
                fetch(*under_way)
            under_way = started
        if under_way:
            fetch(*under_way)
        return results

    def lowered(self, texts: Sequence[packing.Text], **how: Any) -> tuple[jax.stages.Lowered, tuple[int, ...]]:
        """The largest program that `logits` runs for the texts, to be compiled, and the shape of its ids."""
        largest = max(self._rows(packing.lengths_of(texts), **how), key=lambda rows: rows.count * rows.length)
        batch = packing.fill(texts, [], largest.count, largest.length, 0, self.model.kind.choices)
        rows = sharding.batch_sharding(self.mesh)
        shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows) for name, x in batch.items()}
        program = _forward(self.model, self.mesh)(largest.length).lower(self.params, shapes)
        return program, batch["input_ids"].shape

    def _rows(
        self, lengths: list[int], positions: int | None = None, longest: int | None = None
    ) -> Iterator[packing.Rows]:
        longest = min(longest or self.longest, self.longest)
        if lengths and max(lengths) > longest:
            raise InputError(f"text {lengths.index(max(lengths))}: {max(lengths)} tokens, the model reads {longest}")
        parts = sharding.batch_shards(self.mesh)
        platform = self.mesh.devices.flat[0].platform
        positions = positions or parts * POSITIONS.get(platform, POSITIONS_ELSEWHERE)
        return packing.rows_of(lengths, longest, positions, parts)

    def apply(self, inputs: dict[str, np.ndarray]) -> Any:
        """The head's outputs for whole arrays, the same in each process, which are padded: so are the outputs."""
        parts, padded = sharding.batch_shards(self.mesh), {}
        for name, array in inputs.items():
            length = min(max(-(-array.shape[-1] // LENGTH_STEP), 1) * LENGTH_STEP, self.longest)
            if name == "masked_lm_positions":
                length = packing.power_of_two(max(array.shape[1], 1), self.longest)
            rows = parts * packing.power_of_two(max(-(-len(array) // parts), 1), 1 << 30)
            shape = rows, *array.shape[1:-1], length
            padded[name] = np.pad(array, [(0, to - size) for to, size in zip(shape, array.shape, strict=True)])
        outputs = self.forward(padded["input_ids"].shape[-1], self.on_mesh(padded))
        return jax.tree.map(lambda x: x.addressable_data(0), outputs)  # Each device has the whole output.

    def check_ids(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> None:
        """Raises `InputError` for an id that the model has no row for: JAX would take another one."""
        config = self.model.config
        for name, ids, size in (
            ("input_ids", input_ids, config.known_vocab_size),
            ("token_type_ids", token_type_ids, config.type_vocab_size),
        ):
            if ids.size and not 0 <= ids.min() <= ids.max() < size:
                raise InputError(f"{name}: from {ids.min()} to {ids.max()}, the model has 0 to {size - 1}")

    def on_mesh(self, batch: dict[str, np.ndarray]) -> Batch:
        """Whole arrays, the same in each process, with their rows split over the mesh."""
        return sharding.put(batch, dict.fromkeys(batch, sharding.batch_sharding(self.mesh)))


def _masked_positions(
    placements: list[packing.Placed], masked: Sequence[Sequence[int]], rows: int
) -> tuple[np.ndarray, dict[int, Index]]:
    """The masked positions of each row, int32 [rows, predictions], and where those of each text are."""
    positions: list[list[int]] = [[] for _ in range(rows)]
    indices: dict[int, Index] = {}
    for p in placements:
        first = len(positions[p.row])
        positions[p.row] += [p.start + position for position in masked[p.text]]
        indices[p.text] = p.row, slice(first, len(positions[p.row]))
    array = np.zeros((rows, packing.power_of_two(max(map(len, positions)), 1 << 30)), np.int32)
    for row, values in enumerate(positions):
        array[row, : len(values)] = values
    return array, indices


def integers(name: str, values: Any) -> np.ndarray:
    """The values as an array. Raises `InputError` for what isn't whole numbers in rows of one length."""
    try:
        array = np.asarray(values)
    except ValueError:  # Lists of different lengths.
        raise InputError(f"{name}: its rows differ in length; pad them") from None
    if array.size and (array.dtype.kind not in "biuf" or not (array == np.trunc(array)).all()):
        raise InputError(f"{name}: are of type {array.dtype}, must be whole numbers")
    return array.astype(np.int64)


def check_positions(positions: np.ndarray, rows: int, length: int) -> None:
    """Raises `InputError` for masked positions that aren't [rows, masks], or aren't in texts of that length."""
    if positions.ndim != 2 or len(positions) != rows:
        raise InputError(f"masked_lm_positions: are {positions.shape}, must be [{rows}, masks]")
    if positions.size and not 0 <= positions.min() <= positions.max() < length:
        most = f"from {positions.min()} to {positions.max()}"
        raise InputError(f"masked_lm_positions: {most}, the texts have 0 to {length - 1}")
