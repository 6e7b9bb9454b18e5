"""Loads a model from a folder."""

from pathlib import Path

from bert_jax.config import MeshConfig
from bert_jax.config.models import Dtype
from bert_jax.convert import pretrained
from bert_jax.files import storage
from bert_jax.inference.bert import Bert


@storage.errors_in_one_line()
def load(model: str | Path, mesh: MeshConfig | None = None, dtype: Dtype | None = None) -> Bert:
    """Loads a model from a folder, whatever made it.

    JAX's settings stay as they are: to keep compiled programs for other processes, give it a folder before
    (`jax.config.update("jax_compilation_cache_dir", ...)`).

    Args:
      model: a workdir (of a fine-tuning run its best checkpoint, of pretraining its last), a checkpoint's folder, or a
        folder of Hugging Face or google-research; a path, or an address in a bucket (gs://).
      mesh: how the model and its texts are spread over all devices, those of all processes in a run of several (None:
        only the first device of this process). `MeshConfig()` splits the texts.
      dtype: the type of matrix products, as `ModelConfig.dtype` (None: the model's own, float32 unless it was trained
        in another). With bfloat16 the layers' matrices are held in it too.

    Returns:
      The model as a `Bert`.

    Raises:
      InputError: there is no model, or it isn't whole; the line names what is missing. Or the mesh doesn't
        fit the devices.

    Example:
      >>> bert = bert_jax.load("runs/base")
      >>> bert.config.hidden_size
      32
    """
    return Bert(pretrained.read(model), mesh, dtype)
