"""How many cores are granted: by affinity, and by the CPU quotas of cgroups, as the kernel's documentation has them."""

import os

import joblib
import pytest

from bert_jax.data.workers import granted_cores

V1 = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}
UNLIMITED = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"": {"cpu.max": "max 100000\n"}}, 8),
        ("0::/\n", {"": {"cpu.max": "250000 100000\n"}}, 3),
        ("0::/\n", {"": {"cpu.max": "50000 100000\n"}}, 1),
        ("0::/pods/mine\n", {"pods": {"cpu.max": "200000 100000\n"}, "pods/mine": {"cpu.max": "max 100000\n"}}, 2),
        ("0::/pods/mine\n", {"pods": {"cpu.max": "max 100000\n"}, "pods/mine": {"cpu.max": "200000 50000\n"}}, 4),
        ("5:cpuset:/a\n4:cpu,cpuacct:/job\n0::/\n", {"cpu": UNLIMITED, "cpu/job": V1}, 2),
        ("4:cpu:/host/path/of/a/container\n", {"cpu": V1}, 2),
        ("4:cpu:/\n0::/\n", {"cpu": UNLIMITED, "": {}}, 8),
        ("3:cpuacct:/job\n", {"cpuacct/job": V1, "cpu": V1}, 8),
        (None, {}, 8),
    ],
)
def test_cores_of_a_cgroup(tmp_path, monkeypatch, groups, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for folder, contents in files.items():
        (tmp_path / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (tmp_path / "sys/fs/cgroup" / folder / name).write_text(content)
    assert granted_cores(tmp_path) == cores


def test_cores_here_are_joblibs(monkeypatch):
    assert granted_cores() == joblib.cpu_count()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert granted_cores() == 1
