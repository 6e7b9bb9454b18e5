"""launch/tpu_pod.sh: what it asks of gcloud, and what it starts again, in a cloud of two machines that is simulated."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_launch import LAUNCH, executable, run

TPU = ["--type", "v5litepod-256", "--zone", "us-west4-a"]
PRETRAIN = ["--", "pretrain", "--config", "my config's.py", "--workdir", "gs://b/run"]
GCLOUD = "gcloud compute tpus"
LIST = f"{GCLOUD} queued-resources list --zone=us-west4-a '--filter=name~/bert$' '--format=value(state.state)'"
CREATE = f"{GCLOUD} queued-resources create bert --zone=us-west4-a --node-id=bert --accelerator-type=v5litepod-256"
CREATE += " --runtime-version=v2-alpha-tpuv5-lite"
SSH = f"{GCLOUD} tpu-vm ssh bert --zone=us-west4-a --quiet"
WORKER = "bash bert_jax/launch/tpu_worker.sh"
STATE = f"{SSH} --worker=all '--command={WORKER} state'"
FOLLOW = f"{SSH} --worker=0 '--command={WORKER} follow'"
INSTALL = [
    "bash -o pipefail -c 'git ls-files -z --cached --others --exclude-standard | tar --null -T - -czf"
    " '\\''/t/bert_jax-XXXXXXXXXX/bert_jax.tar.gz'\\'''",
    f"{GCLOUD} tpu-vm scp /t/bert_jax-XXXXXXXXXX/bert_jax.tar.gz bert:bert_jax.tar.gz --zone=us-west4-a --quiet"
    " --worker=all",
    f"{SSH} --worker=all '--command=mkdir -p bert_jax && tar --extract --gzip --file=bert_jax.tar.gz"
    f" --directory=bert_jax && {WORKER} install'",
]
# Quoted for the shell of the worker, and once more for the person who copies the line.
START = f"{SSH} --worker=all '--command={WORKER} start pretrain --distributed"
START += " --config my\\ config\\'\\''s.py --workdir gs://b/run'"
DRY_RUNS = {
    "create": [LIST, CREATE, LIST],
    "install": INSTALL,
    "run": [STATE, START, FOLLOW, STATE],
    "log": [FOLLOW],
    "status": [LIST, "pod: ", STATE],
    "stop": [f"{SSH} --worker=all '--command={WORKER} stop'"],
    "delete": [f"{GCLOUD} queued-resources delete bert --zone=us-west4-a --quiet --force"],
    "all": [LIST, CREATE, LIST, STATE, *INSTALL, STATE, START, FOLLOW, STATE],
}


@pytest.mark.parametrize("action", DRY_RUNS)
def test_dry_run_prints_every_command(action):
    done = run(LAUNCH / "tpu_pod.sh", action, "bert", *TPU, "--dry-run", *PRETRAIN, TMPDIR="/t")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == DRY_RUNS[action]


def test_slices_and_further_flags():
    flags = dict(CREATE_FLAGS="--network=n --internal-ips", SSH_FLAGS="--internal-ip")
    options = ["--type", "v6e-16", "--zone", "z", "--project", "p", "--slices", "2", "--spot", "--dry-run"]
    done = run(LAUNCH / "tpu_pod.sh", "all", "bert", *options, "--", "pretrain", "--workdir=gs://b/run", **flags)
    lines = done.stdout.splitlines()
    assert lines[1] == (
        f"{GCLOUD} queued-resources create bert --zone=z --project=p --node-count=2 --node-prefix=bert"
        " --accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e --spot --network=n --internal-ips"
    )
    starts = [line.split(" --quiet")[0] for line in lines if " start " in line]
    assert starts == [f"{GCLOUD} tpu-vm ssh bert-{i} --zone=z --project=p --internal-ip" for i in range(2)]
    assert len([line for line in lines if " follow" in line]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the first word must be all, create, install, run, log, status, stop or delete, not ''"),
        (["all", "--spot"], "after all comes the pod's name, of a-z, 0-9 and -, not '--spot'"),
        (["all", "bert", "--zone", "--spot"], "--zone needs a value"),
        (["all", "bert", "--sopt"], "no option --sopt; the arguments of bert-jax come after --"),
        (["create", "bert"], "--type is missing: the slice's accelerator type, as v5litepod-256"),
        (["create", "bert", "--type", "v9-8"], "--runtime is missing: the TPU software version for v9-8"),
        (["create", "bert", *TPU, "--slices", "0"], "--slices is '0', must be a number from 1"),
        (["run", "bert"], "what to run comes last: -- pretrain --config C --workdir gs://B/RUN"),
        (
            ["run", "bert", "--", "pretrain", "--workdir", "runs"],
            "--workdir must be gs://B/RUN; no worker's disk lasts",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    done = run(LAUNCH / "tpu_pod.sh", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"tpu_pod.sh: {message}\n")


# Two machines, folders here, on which the commands of ssh are really run. A preempted pod answers nobody.
FAKE_GCLOUD = f"""
#!{sys.executable}
import os, pathlib, shutil, subprocess, sys
fake = pathlib.Path(os.environ["FAKE"])
state, workers = fake / "state", [fake / "worker0", fake / "worker1"]
kind, verb, *rest = sys.argv[3:]
options = dict(word.split("=", 1) for word in rest if "=" in word)
with open(fake / "calls", "a") as calls:
    print(verb, options.get("--command", "").split("worker.sh ")[-1].split(" ")[0], file=calls)
if verb == "list":
    print(state.read_text() if state.exists() else "")
elif verb == "create":
    if (fake / "refuses").exists():
        sys.exit("ERROR: no quota")
    state.write_text("ACTIVE")
    for worker in workers:
        worker.mkdir()
elif verb == "delete":
    state.unlink()
    for worker in workers:
        shutil.rmtree(worker)
elif state.read_text() != "ACTIVE":
    sys.exit("ERROR: the TPU is in state PREEMPTED")
elif verb == "scp":
    for worker in workers:
        shutil.copy(rest[0], worker / rest[1].split(":")[1])
else:
    chosen = workers if options["--worker"] == "all" else workers[:1]
    command = ["ssh-shell", "-c", options["--command"]]
    codes = [subprocess.run(command, executable="bash", cwd=w, env={{**os.environ, "HOME": str(w)}}) for w in chosen]
    sys.exit(next((c.returncode for c in codes if c.returncode), 0))
"""
# Makes what `python3 -m venv` would: a pip that installs nothing, and a Python that runs the next of its outcomes.
FAKE_PYTHON3 = """
#!/usr/bin/env bash
[ "$2" = venv ] || exit 0
mkdir -p .venv/bin
printf '#!/bin/sh\\n' > .venv/bin/pip
cp "$FAKE/python" .venv/bin/python
chmod +x .venv/bin/*
"""
FAKE_RUN = f"""
#!{sys.executable}
import json, os, pathlib, signal, sys, time
fake = pathlib.Path(os.environ["FAKE"])
worker = pathlib.Path(os.environ["HOME"]).name
outcomes = fake / f"outcomes-{{worker}}"
first, *others = outcomes.read_text().split()
outcomes.write_text(" ".join(others))
with open(fake / "runs", "a") as runs:
    print(json.dumps([worker, first, sys.argv[1:]]), file=runs)
print(f"step 1 of {{worker}}", flush=True)
if first == "runs":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    time.sleep(30)
time.sleep(0.2)
if first == "preempted":
    (fake / "state").write_text("SUSPENDED")
    first = 143
sys.exit(int(first))
"""


@pytest.fixture
def pod(tmp_path):
    """A checkout with launch/ in it, beside a cloud of two machines; called with the outcomes of each one's runs."""
    for name in ("setup.cfg", "pyproject.toml"):
        (tmp_path / "checkout").mkdir(exist_ok=True)
        shutil.copy(LAUNCH.parent / name, tmp_path / "checkout")
    shutil.copytree(LAUNCH, tmp_path / "checkout/launch")
    subprocess.run(["git", "init", "--quiet", tmp_path / "checkout"], check=True)
    executable(tmp_path / "bin/gcloud", FAKE_GCLOUD)
    executable(tmp_path / "bin/python3", FAKE_PYTHON3)
    executable(tmp_path / "python", FAKE_RUN)
    environment = dict(FAKE=tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", POLL=0, TMPDIR=tmp_path)
    script = tmp_path / "checkout/launch/tpu_pod.sh"

    def call(action: str, *outcomes: str):
        for i, outcome in enumerate(outcomes):
            (tmp_path / f"outcomes-worker{i}").write_text(outcome)
        options = PRETRAIN if action in ("run", "all") else []
        return run(script, action, "bert", *TPU, *options, **environment)

    call.folder = tmp_path
    call.calls = lambda: (tmp_path / "calls").read_text().split("\n")
    call.runs = lambda: [json.loads(line) for line in (tmp_path / "runs").read_text().splitlines()]
    yield call
    for file in tmp_path.glob("worker?/bert_jax/run.pid"):
        if not file.with_name("run.exit").exists():
            os.kill(int(file.read_text()), signal.SIGKILL)


def test_a_preempted_pod_is_asked_for_again_and_the_run_goes_on(pod):
    (pod.folder / "bert_jax-bert.tar.gz").symlink_to("precious")  # The archive had this name, which can be guessed.
    done = pod("all", "preempted 0", "143 0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("step 1 of worker0\n")
    assert "bert is SUSPENDED: asking for another" in done.stderr
    calls = [call for call in pod.calls() if call not in ("", "ssh state", "ssh follow")]
    asked = ["create ", "list ", "scp ", "ssh install", "ssh start"]
    assert calls == ["list ", *asked, "list ", "list ", "delete ", "list ", *asked]
    arguments = ["-m", "bert_jax", "pretrain", "--distributed", "--config", "my config's.py", "--workdir", "gs://b/run"]
    assert sorted(pod.runs()) == sorted(
        [worker, outcome, arguments]
        for worker, outcome in [("worker0", "preempted"), ("worker1", "143"), ("worker0", "0"), ("worker1", "0")]
    )
    assert [file.name for file in pod.folder.glob("bert_jax-*")] == ["bert_jax-bert.tar.gz"]
    assert not (pod.folder / "precious").exists()
    assert (pod.folder / "state").read_text() == "ACTIVE"  # Never deleted without being asked.


@pytest.mark.parametrize(
    ("outcomes", "code", "runs"),
    [
        (["75 0", "75 0"], 0, 2),  # A worker was lost, the pod is there: the same pod again.
        (["75", "2"], 2, 1),  # Bad input, which the others see as a lost process.
        (["1", "75"], 1, 1),
        (["130", "130"], 130, 1),
        (["75 75 75 75 75 75", "75 75 75 75 75 75"], 75, 5),
    ],
)
def test_what_is_started_again(pod, outcomes, code, runs):
    done = pod("all", *outcomes)
    assert done.returncode == code, done.stderr
    assert len(pod.runs()) == 2 * runs
    assert pod.calls().count("create ") == 1


def wait_for(condition) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("nothing came")


def test_a_run_that_is_there_is_followed_and_stopped(pod):
    assert pod("create").returncode == 0
    early = pod("run")
    assert (early.returncode, early.stderr.splitlines()[0]) == (
        2,
        "tpu_pod.sh: not all workers of bert answer; is the checkout installed there?",
    )
    assert pod("install").returncode == 0
    with ThreadPoolExecutor() as pool:
        first = pool.submit(pod, "run", "runs", "runs")
        wait_for(lambda: (pod.folder / "runs").exists() and len(pod.runs()) == 2)
        second = pool.submit(pod, "run")
        host = os.uname().nodename
        assert pod("status").stdout == f"pod: ACTIVE\n{host}: running\n{host}: running\n"
        wait_for(lambda: pod.calls().count("ssh follow") == 2)
        assert pod("stop").returncode == 0
    assert [first.result().returncode, second.result().returncode] == [130, 130]
    assert "tpu_pod.sh: a run is under way on bert: following it" in second.result().stderr
    assert len(pod.runs()) == 2
    assert pod("status").stdout.count(": exit 130\n") == 2
    assert pod("log").stdout == "step 1 of worker0\n"
    assert pod("delete").returncode == 0
    assert not (pod.folder / "state").exists()


def test_trouble_once_the_pod_is_there_is_tried_again(pod):
    executable(pod.folder / "bin/tar", '#!/bin/sh\nrm "$FAKE/bin/tar"\nexit 1\n')  # The first installation fails.
    done = pod("all", "0", "0")
    assert done.returncode == 0, done.stderr
    assert "tpu_pod.sh: installing on bert failed: trying again in 0 seconds\n" in done.stderr
    assert len(pod.runs()) == 2


def test_a_worker_with_an_older_python_installs_another(pod):
    worker = pod.folder / "checkout"
    executable(pod.folder / "bin/python3", "#!/bin/sh\nexit 1\n")
    executable(pod.folder / "bin/python3.11", FAKE_PYTHON3)
    executable(pod.folder / "bin/sudo", '#!/bin/sh\necho "$@" >> "$FAKE/sudo"\n')
    environment = dict(FAKE=pod.folder, PATH=f"{pod.folder}/bin:{os.environ['PATH']}")
    done = run(worker / "launch/tpu_worker.sh", "install", **environment)
    assert done.returncode == 0, done.stderr
    apt = "DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes --option=DPkg::Lock::Timeout=600"
    assert (pod.folder / "sudo").read_text() == f"{apt} update\n{apt} install python3.11 python3.11-venv\n"
    assert (worker / ".venv/installed").read_text().startswith(".[tpu] ")


def test_what_fails_before_the_first_run_ends_it(pod):
    (pod.folder / "refuses").touch()
    done = pod("all")
    assert (done.returncode, done.stderr) == (2, "ERROR: no quota\ntpu_pod.sh: gcloud refused to create bert\n")
    for action, state in [("create", "SUSPENDED"), ("all", "FAILED")]:
        (pod.folder / "state").write_text(state)
        done = pod(action)
        assert (done.returncode, done.stderr) == (2, f"tpu_pod.sh: bert is {state}; delete it and create it anew\n")
