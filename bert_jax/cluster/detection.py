"""Finds which process of a run this is: from flags, or from Cloud TPU, Slurm or Kubernetes."""

import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bert_jax.config import InputError

PORT = 8476
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


@dataclass(frozen=True)
class Place:
    """Which process of a run this is, and where it meets the others."""

    host: str
    """The host of process 0."""
    port: int
    """The port of process 0 where all meet; JAX's own coordination uses the port after it."""
    processes: int
    """The number of processes."""
    process: int
    """The number of this process, from 0."""


def metadata(name: str) -> str | None:
    """An attribute of this Google Cloud machine; None on other machines, or if it has no such attribute."""
    request = urllib.request.Request(METADATA + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.read().decode()
    except OSError:
        return None


def check_alone(environment: Mapping[str, str] = os.environ) -> None:
    """Raises `InputError` if a cluster started several processes: each would be a run of its own, all in one folder."""
    names = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]
    if "SLURM_PROCID" in environment:  # Otherwise this is the shell of salloc, which runs one process.
        names.append("SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS")
    started = {name: int(environment.get(name) or 1) for name in names}
    if tpu := _gke_tpu(environment):
        started["TPU_WORKER_HOSTNAMES"] = tpu["processes"]
    for name, count in started.items():
        if count > 1:
            what = f"{count} processes were started (by {name}), and each would be a run of its own in this workdir"
            raise InputError(f"{what}; add --distributed to make them one, or start one alone (srun --ntasks 1)")


def find(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    environment: Mapping[str, str] = os.environ,
    metadata: Callable[[str], str | None] = metadata,
) -> Place:
    """The place by the flags and, where they are None, by the cluster. Raises `InputError` naming the flag to give."""
    fields: dict[str, Any] = {"coordinator": coordinator, "processes": processes, "process": process}
    for look in (_slurm, _gke_tpu, _kubernetes, lambda _: _cloud_tpu(metadata)):
        if None not in fields.values():
            break
        for name, value in look(environment).items():
            fields[name] = value if fields[name] is None else fields[name]
    for name, value in fields.items():
        if value is None:
            raise InputError(f"--{name}: no cluster found that tells it; give --coordinator, --processes and --process")
    host, _, port = fields["coordinator"].rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65535:
        raise InputError(f"--coordinator: is {fields['coordinator']!r}, must be HOST:PORT of process 0")
    if not 0 <= fields["process"] < fields["processes"]:
        raise InputError(f"--process: is {fields['process']}, must be 0 to {fields['processes'] - 1}")
    return Place(host.strip("[]"), int(port), fields["processes"], fields["process"])


def _slurm(environment: Mapping[str, str]) -> dict:
    """The fields of `Place` for a task of `srun`."""
    if "SLURM_PROCID" not in environment or "SLURM_JOB_ID" not in environment:
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
    first = re.match(r"([^,\[]*)(?:\[([^-,\]]+))?", nodes)  # node[003-007,9],other or, of names in digits, [1001-1004]
    host = "".join(first.groups(default="")) if first else ""
    port = 61_440 + 2 * (int(environment["SLURM_JOB_ID"]) % 2_047)  # Jobs may share a node.
    count = environment.get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"]
    return {
        "coordinator": f"{host}:{port}",
        "processes": int(count),
        "process": int(environment["SLURM_PROCID"]),
    }


def _gke_tpu(environment: Mapping[str, str]) -> dict:
    """The fields for a pod of a TPU slice in Google Kubernetes Engine."""
    # Without a TPU, libtpu sets both to a warning, which the processes inherit that a program with JAX starts.
    if not environment.get("TPU_WORKER_ID", "").isdigit() or "TPU_WORKER_HOSTNAMES" not in environment:
        return {}
    hosts = environment["TPU_WORKER_HOSTNAMES"].split(",")
    return _slices(hosts, int(environment["TPU_WORKER_ID"]), environment)


def _cloud_tpu(metadata: Callable[[str], str | None]) -> dict:
    """The fields for a TPU machine of Google Cloud."""
    worker, endpoints = (metadata(name) for name in ("agent-worker-number", "worker-network-endpoints"))
    if worker is None or endpoints is None:
        return {}
    hosts = [endpoint.split(":")[2] for endpoint in endpoints.split(",")]
    settings = dict(re.findall(r"^(\w+): '([^']*)'", metadata("tpu-env") or "", re.MULTILINE))
    return _slices(hosts, int(worker), settings)


def _slices(hosts: list[str], worker: int, settings: Mapping[str, str]) -> dict:
    """The fields for a worker of a slice. Of several slices, the workers are numbered one slice after the other."""
    slices, number = int(settings.get("MEGASCALE_NUM_SLICES", 1)), int(settings.get("MEGASCALE_SLICE_ID", 0))
    first = settings["MEGASCALE_COORDINATOR_ADDRESS"].split(":")[0] if slices > 1 else hosts[0]
    return {
        "coordinator": f"{first}:{PORT}",
        "processes": slices * len(hosts),
        "process": number * len(hosts) + worker,
    }


def _kubernetes(environment: Mapping[str, str]) -> dict:
    """The field for a pod of an indexed job, which only knows its own number."""
    index = environment.get("JOB_COMPLETION_INDEX")
    return {"process": int(index)} if index else {}
