"""The arrays of a Hugging Face folder, one at a time: safetensors or torch's pickles, in one file or several."""

import json
import pickle
import warnings
from pathlib import Path

import ml_dtypes  # noqa: F401  With it, numpy knows bfloat16.
import numpy as np

from bert_jax.config import InputError, first_line

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
FLOATS = {"F64", "F32", "F16", "BF16"}
# Files are mapped into memory, whose pages count as long as a file is open. It is opened anew after so many bytes.
OPEN_BYTES = 1 << 27


class Tensors:
    """Names, shapes and float32 values of all arrays in a folder.

    Raises `InputError` that names the file where one is missing, cut off, damaged, or holds code.
    """

    def __init__(self, folder: Path):
        self._open: dict[Path, _Safetensors | _Torch] = {}
        self._bytes = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file: dict[str, Path] = {}
        for file in _files(folder):
            opened = self._opened(file)
            for name in opened.shapes:
                if name in self.shapes:
                    raise InputError(f"{file}: {name} is in {self._file[name]} too")
                self._file[name] = file
            self.shapes |= opened.shapes

    def read(self, name: str) -> np.ndarray:
        """The array as float32."""
        self._bytes += 4 * int(np.prod(self.shapes[name]))
        if self._bytes > OPEN_BYTES:
            self._open, self._bytes = {}, 0
        return self._opened(self._file[name]).read(name)

    def _opened(self, file: Path) -> "_Safetensors | _Torch":
        if file not in self._open:
            self._open[file] = (_Safetensors if file.suffix == ".safetensors" else _Torch)(file)
        return self._open[file]


def _files(folder: Path) -> list[Path]:
    """Those that hold the weights, safetensors before pickles."""
    for name in (SAFETENSORS, TORCH):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            try:
                files = sorted({folder / file for file in json.loads(index.read_text())["weight_map"].values()})
            except (ValueError, KeyError, AttributeError, TypeError):
                raise InputError(f"{index}: damaged; copy it again") from None
            for file in files:
                if file.parent != folder or not file.exists():
                    raise InputError(f"{file}: {index.name} names it, but it isn't there; copy it too")
            return files
    raise InputError(f"{folder}: holds no weights; it takes {SAFETENSORS} or {TORCH}, or their index files")


class _Safetensors:
    def __init__(self, file: Path):
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(file, framework="np")
            slices = {name: self._file.get_slice(name) for name in self._file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: cut off or damaged ({error}); copy it again") from None
        self._types = {name: part.get_dtype() for name, part in slices.items()}
        self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        self._name = file

    def read(self, name: str) -> np.ndarray:
        if self._types[name] not in FLOATS:
            raise InputError(f"{self._name}: {name} is of type {self._types[name]}, weights are floating-point")
        return self._file.get_tensor(name).astype(np.float32, copy=False)


class _Torch:
    def __init__(self, file: Path):
        try:
            import torch
        except ModuleNotFoundError:
            raise InputError(f"{file}: reading it takes torch; pip install torch, or save as safetensors") from None
        try:
            with warnings.catch_warnings(action="ignore"):
                try:
                    tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
                except RuntimeError:  # What torch wrote before version 1.6 can't be mapped.
                    tensors = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            reason = str(error).split("WeightsUnpickler error: ")[-1].split("\n")[0]
            raise InputError(f"{file}: refused, it holds more than tensors ({reason}); nothing was run") from None
        except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
            raise InputError(f"{file}: cut off or damaged ({first_line(error)}); copy it again") from None
        if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise InputError(f"{file}: not a dict of tensors, as torch.save(model.state_dict(), ...) writes")
        self._tensors, self._name = tensors, file
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def read(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        if not tensor.is_floating_point():
            raise InputError(f"{self._name}: {name} is of type {tensor.dtype}, weights are floating-point")
        return tensor.detach().float().numpy()
