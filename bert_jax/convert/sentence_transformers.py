"""The files in which sentence-transformers says how texts become vectors: those of its versions 0.2 to 6."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from bert_jax.config import EmbeddingConfig, InputError
from bert_jax.convert import weight_files
from bert_jax.files.contents import json_object, plain_name

MODULES, ENCODER, ABOUT = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
TOKENIZER = "tokenizer_config.json"
LIBRARY = "sentence_transformers."  # The prefix of the types of the library's own modules.
# Modules that are a model of transformers; up to version 0.2 they were named after its architecture.
ENCODERS = ("Transformer", "BERT", "MLMTransformer")
# The prefix of the type of a module that an export couldn't write.
MISSING = "not in this folder: "
# The older names of the kinds of pooling, in the order in which several are concatenated.
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# The fields of each file, with the values that are supported (None: any).
Supported = Mapping[str, tuple[object, ...] | None]
ARGUMENTS: tuple[object, ...] = ({}, None, {"trust_remote_code": True}, {"trust_remote_code": False})
ENCODER_FIELDS: Supported = {
    **dict.fromkeys(["max_seq_length", "do_lower_case", "unpad_inputs"]),
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": ({}, None),
    **dict.fromkeys(["query_length", "document_length", "query_expansion", "tokenizer_name_or_path"], (None,)),
    **dict.fromkeys(["model_args", "tokenizer_args", "config_args"], ARGUMENTS),
    **dict.fromkeys(["model_kwargs", "processor_kwargs", "config_kwargs"], ARGUMENTS),
}
POOLING_FIELDS = dict.fromkeys(
    ["word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt", *FLAGS]
)
NORMALIZE_FIELDS = dict.fromkeys(["module_input_name", "module_output_name"], ("sentence_embedding",))
# Prompts that every model has: empty, where its files don't say otherwise.
BLANK_PROMPTS = ("query", "document")


# ---- Reading --------------------------------------------------------------------------------------------------------


def encoder_folder(folder: Path) -> Path:
    """The folder with a model's encoder: up to version 1 one inside the model's folder, otherwise this folder itself.

    Raises `InputError` where modules.json begins with something else.
    """
    modules = _modules(folder)
    if not modules:
        return folder
    kind, path = modules[0]
    if (kind not in ENCODERS and "." not in kind) or not path.is_dir():
        remedy = "only a Transformer whose folder is there is read; name the folder of the encoder that you want"
        raise InputError(f"{folder / MODULES}: begins with {kind} in {path}; {remedy}")
    return path


def read(folder: Path, longest: int) -> EmbeddingConfig:
    """How vectors are made, as the files in or above an encoder's folder say; the encoder has `longest` positions.

    `unknown` names what they ask for that isn't supported. Raises `InputError` for files that are damaged.
    """
    encoder, tokenizer = _json(folder / ENCODER) or {}, _json(folder / TOKENIZER) or {}
    unknown = _unsupported(encoder, ENCODER_FIELDS)
    root, modules = _with_modules(folder)
    embedding = EmbeddingConfig(
        max_length=_max_length(folder, encoder, tokenizer, longest),
        lowercase=bool(encoder.get("do_lower_case")),
        sentence_transformers=bool(modules),
    )
    if modules:
        for fields, unsupported in (_from_modules(modules), _about(root / ABOUT)):
            embedding = dataclasses.replace(embedding, **fields)
            unknown += unsupported
    elif encoder:  # The encoder's folder alone, copied out of the model's folder.
        unknown.append(f"what {MODULES} says (missing: copy it and the folders that it names)")
    return dataclasses.replace(embedding, unknown=", ".join(unknown))


def _with_modules(folder: Path) -> tuple[Path, list[tuple[str, Path]]]:
    """The folder whose modules.json names an encoder's folder (that folder or its parent), and the modules."""
    folder = folder.absolute()
    for root in (folder, folder.parent):
        modules = _modules(root)
        if modules and modules[0][1] == folder:
            return root, modules
    return folder, []


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """The type of each module (of the library's own, the class name alone), and its folder."""
    file, modules = folder / MODULES, []
    for module in _json(file, list) or []:
        try:
            kind, path = str(module["type"]), module["path"]
        except (KeyError, TypeError):
            raise InputError(f"{file}: a module is {module!r}, without type or path; copy it again") from None
        path = plain_name(path, file) if path else ""  # The first module's path is empty: the folder itself.
        modules.append((kind.rsplit(".", 1)[-1] if kind.startswith(LIBRARY) else kind, folder / path))
    return modules


def _from_modules(modules: list[tuple[str, Path]]) -> tuple[dict, list[str]]:
    """The modules as fields of `EmbeddingConfig`, and what of them isn't supported."""
    values: dict = {}
    unknown = [] if modules[0][0] in ENCODERS else [modules[0][0]]
    for kind, path in modules[1:]:
        config = _json(path / "config.json")
        if kind == "Pooling" and not values:
            values, unsupported = _pooling(config, f"{path.name}/config.json")
        elif kind == "Normalize" and values:
            values["normalize"], unsupported = True, _unsupported(config or {}, NORMALIZE_FIELDS)
        else:
            unsupported = [kind.removeprefix(MISSING)] if kind != "Dropout" else []  # Dropout is for training.
        unknown += unsupported
    return values, unknown if values else [*unknown, f"a {MODULES} without Pooling"]


def _pooling(config: dict | None, name: str) -> tuple[dict, list[str]]:
    if config is None:
        return {"pooling": "mean"}, [f"what {name} says (missing: copy it)"]
    flags = [flag for flag in FLAGS if config.get(flag)]
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else named or [FLAGS[flag] for flag in flags] or ["mean"]
    unknown = _unsupported(config, POOLING_FIELDS)
    if modes not in (["mean"], ["cls"]):
        return {"pooling": "mean"}, unknown + ([f"pooling_mode {json.dumps(named)}"] if named else flags)
    whole = bool(config.get("include_prompt", True))
    if modes == ["cls"] and not whole:  # Before version 6, [CLS] was taken all the same.
        return {"pooling": "cls"}, [*unknown, "include_prompt false with the pooling cls"]
    return {"pooling": modes[0], "include_prompt": whole}, unknown


def _about(file: Path) -> tuple[dict, list[str]]:
    """What config_sentence_transformers.json says, as fields of `EmbeddingConfig`, and what of it isn't supported."""
    config = _json(file) or {}
    prompts, default, width = config.get("prompts") or {}, config.get("default_prompt_name"), config.get("truncate_dim")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise InputError(f"{file}: prompts must be an object of texts by their names; copy it again")
    if default not in (None, *BLANK_PROMPTS, *prompts):
        raise InputError(
            f"{file}: default_prompt_name is {default!r}, must be one of {', '.join(prompts) or 'no'} prompts"
        )
    values = {
        "prompts": {name: text or "" for name, text in prompts.items()},
        "default_prompt": default if default in prompts else None,
        "dimensions": None if width is None else _number(width, 1, f"{file}: truncate_dim"),
        "similarity": config.get("similarity_fn_name"),
    }
    return values, _unsupported(config, {**dict.fromkeys(config), "model_type": ("SentenceTransformer",)})


def _max_length(folder: Path, encoder: dict, tokenizer: dict, longest: int) -> int | None:
    """The length to which texts are cut, None if it is the model's. In version 6 only the tokenizer's file has it."""
    name, file = "max_seq_length", ENCODER
    if (limit := encoder.get(name)) is None:
        name, file = "model_max_length", TOKENIZER
        limit = tokenizer.get(name, tokenizer.get("max_len"))
    if limit is None:
        return None
    limit = _number(limit, 2, f"{folder / file}: {name}")
    return limit if limit < longest else None


def _number(value, least: int, name: str) -> int:
    if not isinstance(value, int | float) or value < least:
        raise InputError(f"{name} is {value!r}, must be a number from {least} on, or null")
    return int(value)


def _unsupported(config: dict, supported: Supported) -> list[str]:
    """The fields whose values ask for something that isn't supported."""
    return [
        f"{name} {json.dumps(value)}"
        for name, value in config.items()
        if (values := supported.get(name, ())) is not None and value not in values
    ]


def _json(file: Path, kind: type = dict):
    """The contents of a JSON file; None where there is no file."""
    return json_object(file, kind) if weight_files.present(file) else None


# ---- Writing --------------------------------------------------------------------------------------------------------


def write(folder: Path, embedding: EmbeddingConfig, longest: int, width: int) -> None:
    """Writes files that versions 2 to 6, and `read`, understand alike; `longest` and `width` are the model's.

    What isn't supported can't be written: a module named after it, which nobody has, keeps readers from ignoring it.
    """
    types = ["Transformer", "Pooling", *(["Normalize"] if embedding.normalize else [])]
    paths = [f"{i}_{kind}" if i else "" for i, kind in enumerate(types)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{LIBRARY}models.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, types, strict=True))
    ]
    if embedding.unknown:
        i = len(modules)
        modules.append({"idx": i, "name": str(i), "path": f"{i}_Missing", "type": MISSING + embedding.unknown})
    for path in paths[1:]:
        (folder / path).mkdir()
    pooling = {"word_embedding_dimension": width}
    pooling |= {flag: mode == embedding.pooling for flag, mode in list(FLAGS.items())[:4]}  # For all versions.
    about = {
        "prompts": embedding.prompts,
        "default_prompt_name": embedding.default_prompt,
        "similarity_fn_name": embedding.similarity,
    }
    files = {
        MODULES: modules,
        ENCODER: {"max_seq_length": embedding.max_length or longest, "do_lower_case": embedding.lowercase},
        ABOUT: about | ({"truncate_dim": embedding.dimensions} if embedding.dimensions else {}),
        "1_Pooling/config.json": pooling | ({} if embedding.include_prompt else {"include_prompt": False}),
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def use() -> list[str]:
    """`Format.use` of a folder that sentence-transformers reads."""
    return [
        "In this folder:",
        """```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")
vectors = model.encode(["One text.", "And another one."])
```""",
    ]
