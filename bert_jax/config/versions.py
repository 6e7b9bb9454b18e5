"""How what an earlier version wrote becomes what this one reads: numbers of formats, and fields that have changed.

A field of a config that is new needs nothing here: what was written without it has its default.
"""

from typing import Any

from bert_jax.config import InputError

# Of checkpoints, and of the folders that `import` writes. 1 said no number and had no checksums.
CHECKPOINT = 2

# Fields of a config that have another name now, as "ModelConfig.old": "new".
RENAMED: dict[str, str] = {}
# Fields that there are no more, as "ModelConfig.old": the value at which the results are those of a run without it.
GONE: dict[str, Any] = {}


def check_format(found: Any, newest: int, where: object) -> None:
    """Raises `InputError` where a later version wrote it, or the number is none."""
    if type(found) is not int or found < 1:
        raise InputError(f"{where}: damaged (its format is {found!r:.40}, must be a number from 1); copy it again")
    if found > newest:
        raise InputError(f"{where}: format {found}, this version reads up to {newest}; upgrade bert_jax")


def migrated(kind: str, values: dict, where: str = "") -> dict:
    """The fields of a config of the class `kind` as any version wrote them, under the names they have now.

    Raises `InputError` naming the field where one that is gone had a value that decided something.
    """
    now: dict = {}
    for name, value in values.items():
        field = f"{kind}.{name}"
        if field not in GONE:
            new = RENAMED.get(field, name)
            if new in now:
                raise InputError(f"{where}{new}: is there twice, once under an older name")
            now[new] = value
        elif value != GONE[field]:
            what = f"is {value!r}, and this version only does what {GONE[field]!r} did"
            raise InputError(f"{where}{name}: {what}; use the version of bert_jax that wrote it")
    return now
