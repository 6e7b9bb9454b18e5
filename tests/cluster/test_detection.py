"""Which process of a run this is: from flags, Slurm, MPI, GKE, or a TPU's metadata."""

import pytest

from bert_jax.cluster import detection
from bert_jax.cluster.detection import Place
from bert_jax.config import InputError

SLURM = {
    "SLURM_JOB_ID": "4094",
    "SLURM_JOB_NODELIST": "gpu[003-006,9],login",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "2",
}
GKE = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "tpu-0.svc,tpu-1.svc"}
SLICES = {
    "MEGASCALE_NUM_SLICES": "3",
    "MEGASCALE_SLICE_ID": "2",
    "MEGASCALE_COORDINATOR_ADDRESS": "first-0.svc:8080",
}
TPU_VM = {
    "agent-worker-number": "3",
    "worker-network-endpoints": "unknown:unknown:10.0.0.7,unknown:unknown:10.0.0.8,a:b:10.0.0.9,a:b:10.0.0.10",
    "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\nWORKER_ID: '3'\n",
}


@pytest.mark.parametrize(
    ("environment", "metadata", "flags", "place"),
    [
        ({}, {}, ("10.0.0.1:99", 4, 3), Place("10.0.0.1", 99, 4, 3)),
        ({}, {}, ("[::1]:99", 1, 0), Place("::1", 99, 1, 0)),
        (SLURM, {}, (None, None, None), Place("gpu003", 61_440, 5, 2)),
        (SLURM | {"SLURM_STEP_NODELIST": "n7"}, {}, (None, None, None), Place("n7", 61_440, 5, 2)),
        (SLURM | {"SLURM_STEP_NODELIST": "[1001-1004]"}, {}, (None, None, None), Place("1001", 61_440, 5, 2)),
        (SLURM, {}, ("other:5", None, None), Place("other", 5, 5, 2)),
        (GKE, {}, (None, None, None), Place("tpu-0.svc", 8476, 2, 1)),
        (GKE | SLICES, {}, (None, None, None), Place("first-0.svc", 8476, 6, 5)),
        ({"JOB_COMPLETION_INDEX": "2"}, {}, ("job-0:9", 3, None), Place("job-0", 9, 3, 2)),
        ({}, TPU_VM, (None, None, None), Place("10.0.0.7", 8476, 4, 3)),
    ],
)
def test_a_process_finds_its_place(environment, metadata, flags, place):
    assert detection.find(*flags, environment, metadata.get) == place


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((None, None, None), "--coordinator: no cluster found"),
        (("host:1", 2, None), "--process: no cluster found"),
        (("host", 2, 0), "--coordinator: is 'host', must be HOST:PORT"),
        (("host:1", 2, 2), "--process: is 2, must be 0 to 1"),
    ],
)
def test_a_place_that_is_none(flags, message):
    with pytest.raises(InputError, match=message):
        detection.find(*flags, {}, {}.get)


MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (SLURM, "5 processes .* SLURM_NTASKS"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "3"}, "3 processes .* SLURM_STEP_NUM_TASKS"),
        (MPI, "2 processes .* OMPI_COMM_WORLD_SIZE"),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, "4 processes .* PMI_SIZE"),
        (GKE, "2 processes .* TPU_WORKER_HOSTNAMES"),
        (GKE | SLICES, "6 processes"),
    ],
)
def test_several_processes_without_distributed_are_refused(environment, name):
    with pytest.raises(InputError, match=f"{name}.*; add --distributed"):
        detection.check_alone(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"},  # A shell of salloc.
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"},
        {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
        {
            "TPU_WORKER_ID": "WARNING: could not determine TPU worker number, please set env var `TPU_WORKER_ID`",
            "TPU_WORKER_HOSTNAMES": "WARNING: could not determine TPU worker hostnames, please set them, otherwise ...",
        },
    ],
)
def test_one_process_of_a_cluster_is_a_run(environment):
    detection.check_alone(environment)
