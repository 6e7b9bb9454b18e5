"""What the commands' options have in common: they are the fields of a config, and options for several processes."""

import argparse
import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any

import tyro

from bert_jax.config import FinetuneConfig, InputError, PretrainConfig
from bert_jax.config.files import load_config
from bert_jax.files import storage
from bert_jax.files.printable import harmless

# The config's fields are options of the command itself: --optimizer.learning-rate, without --config before it.
ConfigFields = Annotated[PretrainConfig, tyro.conf.arg(name="")]
ConfigName = Annotated[str, tyro.conf.arg(name="config", metavar="FILE|NAME")]
# A switch without its opposite: --overwrite, and no --no-overwrite.
Flag = tyro.conf.FlagCreatePairsOff[bool]
OptionalConfigName = Annotated[str | None, tyro.conf.arg(name="config", metavar="FILE|NAME")]


def find(arguments: list[str], *flags: str) -> tuple[argparse.Namespace, list[str]]:
    """The values of these flags, None where a flag isn't given, and all other arguments."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in flags:
        finder.add_argument(flag)
    return finder.parse_known_args(arguments)


def parse(command: type, arguments: list[str]):
    """The command with the config that --config names, whose fields can be overridden by flags with their paths.

    A command's `UNREAD` has the fields that it doesn't use, with the reasons: they aren't options, and raise
    `InputError` where the config has another value than the default.
    """
    named, _ = find(arguments, "--config", "--task")
    check_task(named)
    required = {field.name: tyro.MISSING for field in fields(command) if field.default is MISSING}
    kind = typing.get_type_hints(command)["config"]
    task = {"task": named.task} if named.task and kind is FinetuneConfig else {}
    config = load_config(named.config, kind, **task) if named.config else kind()
    unread = getattr(command, "UNREAD", {})
    for path, reason in unread.items():
        value, default_value = (functools.reduce(getattr, path.split("."), c) for c in (config, kind()))
        if value != default_value:
            raise InputError(f"{named.config}: {path} is {value!r}, but {reason}; leave it out")
    default = command(**{**required, "config": config})
    name = re.sub("(?<=[a-z])(?=[A-Z])", " ", command.__name__).lower()
    parsed = command_line(command, f"bert-jax {name}", default, arguments, unread)
    parsed.config.validate()
    return parsed


def check_task(named: argparse.Namespace) -> None:
    """Raises `InputError` where --task is given without --config."""
    if named.task and not named.config:
        raise InputError(
            f"--task {named.task}: chooses among a config's tasks, but there is no --config; give it, or --task.name"
        )


def command_line(command: type, prog: str, default: Any, arguments: list[str], unread: Iterable[str]):
    """The command from its arguments. Fields of the config whose paths are in `unread` aren't options."""
    left_out: dict[type, set[str]] = {}
    for path in unread:
        *parents, name = path.split(".")
        left_out.setdefault(type(functools.reduce(_part, parents, default.config)), set()).add(name)
    registry = tyro.constructors.ConstructorRegistry()

    @registry.struct_rule
    def without(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
        names = left_out.pop(info.type, None)  # Removed meanwhile, so that tyro below uses its own rule.
        if names is None:
            return None
        spec = registry.get_struct_spec(info)
        left_out[info.type] = names
        assert isinstance(spec, tyro.constructors.StructConstructorSpec)
        options = tuple(field for field in spec.fields if field.name not in names)
        return dataclasses.replace(
            spec, fields=options, instantiate=lambda **values: dataclasses.replace(info.default, **values)
        )

    @registry.primitive_rule
    def text(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        """A text as tyro reads it; as a default in the help, which may be of a stranger's model, it is harmless."""
        if info.type is not str:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            *(1, "STR", lambda given: given[0], lambda value: isinstance(value, str), lambda value: [harmless(value)])
        )

    return tyro.cli(command, prog=prog, default=default, args=arguments, registry=registry)


def _part(config, name: str):
    return config[int(name)] if name.isdigit() else getattr(config, name)


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """Options of a command that several processes can run together."""

    distributed: bool = False
    """This is one of several processes. Cloud TPU, Slurm and Kubernetes tell which one; elsewhere the next three do."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to which all others connect; the next port must be free too."""
    processes: int | None = None
    """Number of processes of the run."""
    process: int | None = None
    """The number of this process, from 0."""
    timeout: float = 300.0
    """Seconds to wait for the other processes, at the start and at the end."""


def run_together(
    command: Distributed,
    workdir: str,
    arguments: list[str],
    run: Callable[[], int],
    prepare: Callable = lambda: None,
) -> int:
    """Runs the command here, or as one of several supervised processes, of which only the first runs `prepare`."""
    from bert_jax.cluster import detection, supervisor

    if not command.distributed:
        detection.check_alone()
        return run()
    role = supervisor.role()
    if role is None:
        place = detection.find(command.coordinator, command.processes, command.process)
        return supervisor.supervise(place, arguments, storage.path(workdir), command.timeout)
    supervisor.end_with_parent()
    if role == supervisor.PREPARE:
        prepare()
        return 0
    supervisor.join()
    return run()
