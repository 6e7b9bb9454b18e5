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
    """The slice: v4, v5e, v5p or v6e and its chips along each axis, as v5e:4x4 or v5p:2x2x2."""
    slices: int = 1
    """So many of them, joined by the hosts' network."""
    phase: int | None = None
    """Plan this phase only; 0 is the first."""
    search: bool = False
    """Try other meshes, batch sizes and rematerialisation too; a table, the fastest first."""
    scaling: Path | None = None
    """Plan the phase (else the first) on slices of all sizes up to the topology; a plot and figures for this folder."""
    json: Path | None = None
    """A file to write the plans to."""


def run(arguments: list[str]) -> None:
    # Before a config file imports JAX, as one does that adds an optimizer: it shall take no accelerator that is here.
    os.environ["JAX_PLATFORMS"] = "cpu"
    command = parse(Plan, arguments)
    from bert_jax.devices import compiling
    from bert_jax.planning.phase import CONFIG_FILES
    from bert_jax.planning.plan import plan

    CONFIG_FILES.append(file_of(command.config_name))
    compiling.begin()
    options = dict(try_others=command.search, scaling_folder=command.scaling, json_file=command.json)
    plan(command.config, command.topology, command.slices, command.phase, **options)
