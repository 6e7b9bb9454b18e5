"""The arrays of a Hugging Face folder, one at a time: safetensors, torch's pickles or Flax's msgpack."""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  With it, numpy knows bfloat16.
import numpy as np

from bert_jax.config import InputError, first_line
from bert_jax.convert.weight_files import weight_files
from bert_jax.files import contents

# Types whose values are complete in themselves; those of fewer bits need scales, which are stored beside them.
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# The pages of a file that is mapped into memory count while it is open, so it is reopened after this many bytes.
OPEN_BYTES = 1 << 27
# Tensors of torch may share their numbers, as tied layers do: their sizes may add up to this multiple of the file's.
SHARED = 16


class Tensors:
    """Names, shapes and float32 values of all arrays in a folder.

    An array in nested dicts is named by their keys, joined by dots. Raises `InputError` that names the
    file where one is missing, cut off, damaged, or holds code.
    """

    def __init__(self, folder: Path):
        self._open: dict[Path, _Safetensors | _InMemory] = {}
        self._bytes = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file: dict[str, Path] = {}
        for file in weight_files(folder):
            opened = self._opened(file)
            for name in opened.shapes:
                if name in self.shapes:
                    raise InputError(f"{file}: {name} is in {self._file[name]} too")
                self._file[name] = file
            self.shapes |= opened.shapes

    def read(self, name: str) -> np.ndarray:
        """The array as float32."""
        self._bytes += 4 * int(np.prod(self.shapes[name]))
        if self._bytes > OPEN_BYTES:  # Flax's stay: they are in memory as a whole.
            self._open = {file: opened for file, opened in self._open.items() if file.suffix == ".msgpack"}
            self._bytes = 0
        file = self._file[name]
        opened = self._opened(file)
        if opened.types[name] not in (*FLOATS, *FLOATS.values()):
            only = "only those of 16 bits and more are read, so bring the weights that weren't quantised"
            raise InputError(f"{file}: {name} is of type {opened.types[name]}; {only}")
        return opened.read(name)

    def _opened(self, file: Path) -> "_Safetensors | _InMemory":
        if file not in self._open:
            kinds: dict[str, Callable[[Path], _Safetensors | _InMemory]] = {
                ".safetensors": _Safetensors,
                ".msgpack": _flax,
            }
            self._open[file] = kinds.get(file.suffix, _torch)(file)
        return self._open[file]


class _Safetensors:
    def __init__(self, file: Path):
        from safetensors import SafetensorError, safe_open

        contents.check_weights(file, contents.SAFETENSORS)
        try:
            self._file = safe_open(file, framework="np")
            slices = {name: self._file.get_slice(name) for name in self._file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: cut off or damaged ({error}); copy it again") from None
        self.types = {name: part.get_dtype() for name, part in slices.items()}
        self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}

    def read(self, name: str) -> np.ndarray:
        return self._file.get_tensor(name).astype(np.float32, copy=False)


class _InMemory:
    """The arrays of a file that is read, or mapped, as a whole."""

    def __init__(self, arrays: dict[str, Any], types: dict[str, str], read: Callable[[Any], np.ndarray]):
        self._arrays, self._read, self.types = arrays, read, types
        self.shapes = {name: tuple(array.shape) for name, array in arrays.items()}

    def read(self, name: str) -> np.ndarray:
        return self._read(self._arrays[name])


def _torch(file: Path) -> _InMemory:
    """Tensors that torch.save wrote, by their names, also those in nested dicts beside other values."""
    contents.check_weights(file, contents.ZIP, contents.PICKLE)
    try:
        import torch
    except ModuleNotFoundError:
        raise InputError(f"{file}: reading it takes torch; pip install torch, or save as safetensors") from None
    _check_archive(file)
    try:
        with warnings.catch_warnings(action="ignore"):
            try:
                values = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # What torch wrote before version 1.6 can't be mapped.
                values = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("WeightsUnpickler error: ")[-1].split("\n")[0].split(" was not an allowed")[0]
        remedy = "save the state dict alone, where it was made: torch.save(model.state_dict(), ...)"
        raise InputError(f"{file}: refused, it holds more than tensors ({reason}); nothing was run; {remedy}") from None
    except Exception as error:  # On damaged bytes, the unpickler may raise anything.
        raise InputError(f"{file}: cut off or damaged ({first_line(error)}); copy it again") from None
    tensors = dict(_leaves(values, torch.Tensor))
    if not tensors:
        raise InputError(f"{file}: not a dict of tensors, as torch.save(model.state_dict(), ...) writes")
    for name, tensor in tensors.items():
        # A tensor that is sparse, or repeats what its storage holds, may claim any size.
        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise InputError(f"{file}: {name} isn't stored as it is; save a dense, contiguous() copy")
    if (claimed := sum(tensor.nbytes for tensor in tensors.values())) > SHARED * (size := file.stat().st_size):
        raise InputError(f"{file}: says that {claimed:,} bytes are in its {size:,}; save it anew with torch.save")
    types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return _InMemory(tensors, types, lambda tensor: tensor.detach().float().numpy())


def _check_archive(file: Path) -> None:
    """Raises `InputError` for a zip archive that torch.save didn't write; a file that is cut off is no archive."""
    try:
        if not zipfile.is_zipfile(file):
            return
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cut off or damaged ({first_line(error)}); copy it again") from None
    if sum(entry.file_size for entry in entries) > file.stat().st_size:
        raise InputError(f"{file}: says that it holds more than its size; save it anew with torch.save")
    inside = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in inside):
        raise InputError(f"{file}: a program of TorchScript, which isn't run; bring the state dict of its model")
    if not any(name.endswith("/data.pkl") for name in inside):
        raise InputError(f"{file}: a zip archive ({', '.join(inside[:3])}, ...), not torch's weights; unpack it")


def _flax(file: Path) -> _InMemory:
    """Arrays that flax.serialization.to_bytes wrote."""
    from flax.serialization import msgpack_restore

    contents.check_weights(file, contents.MSGPACK)
    try:
        arrays = dict(_leaves(msgpack_restore(file.read_bytes()), np.ndarray))
    # On damaged bytes, msgpack, NumPy and Flax may raise anything.
    except Exception as error:
        raise InputError(f"{file}: cut off or damaged ({first_line(error)}); copy it again") from None
    if not arrays:
        raise InputError(f"{file}: not a dict of arrays, as Flax models of transformers 4 are saved")
    types = {name: array.dtype.name for name, array in arrays.items()}
    return _InMemory(arrays, types, lambda array: array.astype(np.float32))


def _leaves(values: Any, kind: type, name: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays in nested dicts, named by their keys joined by dots; other values are skipped."""
    if isinstance(values, kind):
        yield name, values
    elif isinstance(values, dict):
        for key, inner in values.items():
            yield from _leaves(inner, kind, f"{name}.{key}" if name else str(key))
