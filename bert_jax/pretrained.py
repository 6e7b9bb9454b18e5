"""What a MODEL on disk holds, whatever its format: the one way in for inference, fine-tuning, import and export."""

import dataclasses
from pathlib import Path

import jax

from bert_jax import embedding, storage
from bert_jax.config import HeadConfig, InputError, ModelConfig, PretrainConfig, from_dict, to_dict
from bert_jax.convert import huggingface
from bert_jax.data import tokenizers
from bert_jax.model import init_params, make_model
from bert_jax.training import steps
from bert_jax.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model with its weights and tokenizer."""

    model: ModelConfig
    head: HeadConfig
    tokenizer: tokenizers.Tokenizer
    params: dict
    about: dict
    """Where it comes from: of a run of ours `config` and `step`, of another's folder `source`, and
    `embedding`, how its vectors of texts are made."""


def read(name: str | Path) -> Pretrained:
    """The model of a run's workdir (its last checkpoint), a checkpoint's folder, or a Hugging Face BERT folder.

    Raises `InputError` where there is none, or what is there isn't whole.
    """
    folder = storage.path(name)
    if (folder / "config.json").exists():
        return _of_hugging_face(folder)
    return _of_checkpoint(*find_checkpoint(name))


def save(pretrained: Pretrained, folder: Path) -> None:
    """Writes a folder of ours, which `read` and --init take as they take a run's workdir."""
    about = {"model": to_dict(pretrained.model), "head": to_dict(pretrained.head), "about": pretrained.about}
    checkpoints = Checkpoints(folder / "checkpoints", writing=True)
    checkpoints.save(0, {"params": pretrained.params}, about, pretrained.tokenizer.to_dict(), None)
    checkpoints.close()


def find_checkpoint(model: str | Path) -> tuple[Checkpoints, int]:
    """The checkpoint of a workdir (its last) or of a checkpoint's folder."""
    path = storage.path(model)
    if (path / "checkpoints").exists():
        checkpoints = Checkpoints(path / "checkpoints")
        if checkpoints.latest is not None:
            return checkpoints, checkpoints.latest
    elif path.name.isdigit() and path.is_dir():
        checkpoints = Checkpoints(path.parent)
        if int(path.name) in checkpoints.steps:
            return checkpoints, int(path.name)
    raise InputError(f"{model}: holds no checkpoint; give the workdir of a run, or a folder in its checkpoints/")


def _of_checkpoint(checkpoints: Checkpoints, step: int) -> Pretrained:
    about = checkpoints.about(step)
    if "config" in about:
        config = from_dict(PretrainConfig, about["config"])
        model, head, about = config.model, steps.pretraining_head(config), {"config": about["config"], "step": step}
    else:
        model, head = from_dict(ModelConfig, about["model"]), from_dict(HeadConfig, about["head"])
        about = about["about"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(lambda: init_params(make_model(model, head), 0))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    tokenizer = tokenizers.from_dict(checkpoints.tokenizer(step))
    return Pretrained(model, head, tokenizer, checkpoints.restore(step, {"params": like})["params"], about)


def _of_hugging_face(folder: Path) -> Pretrained:
    model, head, params = huggingface.read(folder)
    about = {"source": str(folder), "embedding": dataclasses.asdict(embedding.of_folder(folder))}
    return Pretrained(model, head, tokenizers.of_folder(folder), params, about)
