"""What the commands' options have in common: a config whose fields they are, and several processes."""

import argparse
import re
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated

import tyro

from bert_jax.config import FinetuneConfig, PretrainConfig
from bert_jax.config_files import load_config

# The config's fields are options of the command itself: --optimizer.learning-rate, without --config before it.
ConfigFields = Annotated[PretrainConfig, tyro.conf.arg(name="")]
ConfigName = Annotated[str, tyro.conf.arg(name="config", metavar="FILE|NAME")]
OptionalConfigName = Annotated[str | None, tyro.conf.arg(name="config", metavar="FILE|NAME")]


def find(arguments: list[str], *flags: str) -> tuple[argparse.Namespace, list[str]]:
    """The values of these flags, None where they aren't given, and all other arguments."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in flags:
        finder.add_argument(flag)
    return finder.parse_known_args(arguments)


def parse(command: type, arguments: list[str]):
    """The command with the config that --config names, each of its fields overridden by the flag of its path."""
    named, _ = find(arguments, "--config", "--task")
    required = {field.name: tyro.MISSING for field in fields(command) if field.default is MISSING}
    kind = typing.get_type_hints(command)["config"]
    task = {"task": named.task} if named.task and kind is FinetuneConfig else {}
    config = load_config(named.config, kind, **task) if named.config else kind()
    default = command(**{**required, "config": config})
    parsed = tyro.cli(
        command,
        prog=f"bert-jax {re.sub('(?<=[a-z])(?=[A-Z])', ' ', command.__name__).lower()}",
        default=default,
        args=arguments,
    )
    parsed.config.validate()
    return parsed


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """Options of a command that several processes run together."""

    distributed: bool = False
    """This is one process of several. Cloud TPU, Slurm and Kubernetes tell which; elsewhere the next three do."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where all meet; the port after it must be free too."""
    processes: int | None = None
    """How many processes the run has."""
    process: int | None = None
    """The number of this one, from 0."""
    timeout: float = 300.0
    """Seconds to wait for the others, at the start and at the end."""


def run_together(command: Distributed, arguments: list[str], run: Callable[[], int], prepare: Callable = lambda: None):
    """Runs the command here, or as one of several processes that supervisors watch; `prepare` in the first alone."""
    from bert_jax import cluster, supervisor

    if not command.distributed:
        cluster.check_alone()
        return run()
    role = supervisor.role()
    if role is None:
        place = cluster.find(command.coordinator, command.processes, command.process)
        return supervisor.supervise(place, arguments, command.timeout)
    supervisor.end_with_parent()
    if role == supervisor.PREPARE:
        prepare()
        return 0
    supervisor.join()
    return run()
