"""`bert-jax plan`."""

import os
from dataclasses import dataclass
from pathlib import Path

from bert_jax.cli.options import ConfigFields, ConfigName, parse
from bert_jax.config.files import file_of


@dataclass(frozen=True)
class Plan:
    """Compiles a run's training step for TPUs that aren't here: memory, FLOPs, traffic, time."""

    config_name: ConfigName
    """A config file, or the name of one that ships with bert_jax."""
    config: ConfigFields
    topology: str
    """The slice: v4, v5e, v5p or v6e and its chips along each axis, for example v5e:4x4 or v5p:2x2x2; or Cloud TPU's
    accelerator type, for example v5litepod-16."""
    slices: int = 1
    """Number of slices, joined by the hosts' network."""
    phase: int | None = None
    """Plan only this phase; 0 is the first."""
    search: bool = False
    """Also try other meshes, batch sizes and rematerialisation; prints a table, the fastest first."""
    scaling: Path | None = None
    """Plan the phase (default: the first) on slices of all sizes up to the topology; folder for a plot and figures."""
    json: Path | None = None
    """File to write the plans to."""


def run(arguments: list[str]) -> None:
    # Before a config file imports JAX, for example to add an optimizer: it must take no accelerator of this machine.
    os.environ["JAX_PLATFORMS"] = "cpu"
    command = parse(Plan, arguments)
    from bert_jax.devices import compiling
    from bert_jax.planning.phase import CONFIG_FILES
    from bert_jax.planning.plan import plan

    CONFIG_FILES.append(file_of(command.config_name))
    compiling.begin()
    options = dict(try_others=command.search, scaling_folder=command.scaling, json_file=command.json)
    plan(command.config, command.topology, command.slices, command.phase, **options)
