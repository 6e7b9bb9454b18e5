"""A format from outside: NumPy's archive of arrays, by their names in Hugging Face's models."""

import json

import numpy as np

from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.config.files import from_dict, to_dict
from bert_jax.convert import names
from bert_jax.convert.formats import Format
from bert_jax.convert.pretrained import FORMATS
from bert_jax.convert.report import Report
from bert_jax.files.contents import json_object


def write(folder, model, head, params):
    (folder / "about.json").write_text(json.dumps({"model": to_dict(model), "head": to_dict(head)}))
    np.savez(folder / "model.npz", **dict(names.to_arrays(params, model, head, "hf")))


def read(folder, allow_missing, kind):
    about = json_object(folder / "about.json")
    model, head = from_dict(ModelConfig, about["model"]), from_dict(HeadConfig, about["head"])
    head = head if kind in (None, head.kind) else HeadConfig(kind)
    arrays = dict(np.load(folder / "model.npz", allow_pickle=False))
    there = {name: array.shape for name, array in arrays.items()}
    report = Report.from_shapes(folder, names.array_shapes(model, head, "hf"), there, allow_missing)
    return model.validate(), head.validate(), names.to_params(arrays.get, model, head, "hf"), report


def match(folder):
    return 2 if (folder / "model.npz").exists() else 0


FORMATS["npz"] = Format("npz", write, read, match)
