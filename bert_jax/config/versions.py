"""How configs and checkpoints of earlier versions are read: numbers of formats, and fields that have changed.

A new field of a config needs nothing here: a config written without it has its default.
"""

from typing import Any

from bert_jax.config import InputError

# The format of checkpoints, and of the folders that `import` writes. Format 1 had neither a number nor checksums.
CHECKPOINT = 2

# Renamed fields of a config, as "ModelConfig.old": "new".
RENAMED: dict[str, str] = {}
# Removed fields, as "ModelConfig.old": the value with which a run gives the same results as one without the field.
REMOVED: dict[str, Any] = {}


def check_format(number: Any, newest: int, where: object) -> None:
    """Raises `InputError` where `number` isn't the number of a format, or is one of a later version."""
    if type(number) is not int or number < 1:
        raise InputError(f"{where}: damaged (its format is {number!r:.40}, must be a number from 1); copy it again")
    if number > newest:
        raise InputError(f"{where}: format {number}, this version reads up to {newest}; upgrade bert_jax")


def migrated(kind: str, values: dict, where: str = "") -> dict:
    """The fields of a config of the class `kind` that any version wrote, under their present names.

    Raises `InputError` naming the field where a removed one had a value that changed the results.
    """
    now: dict = {}
    for name, value in values.items():
        field = f"{kind}.{name}"
        if field not in REMOVED:
            new = RENAMED.get(field, name)
            if new in now:
                raise InputError(f"{where}{new}: is given twice, once under an older name")
            now[new] = value
        elif value != REMOVED[field]:
            what = f"is {value!r}, and this version only does what {REMOVED[field]!r} did"
            raise InputError(f"{where}{name}: {what}; use the version of bert_jax that wrote it")
    return now
