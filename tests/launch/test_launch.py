"""The other scripts of launch/: what they pass on and start again, with stand-ins for Slurm and Python."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from bert_jax.config import InputError

LAUNCH = Path(__file__).parents[2] / "launch"
_SPEC = importlib.util.spec_from_file_location("reproduction_table", LAUNCH / "reproduction_table.py")
_SPEC.loader.exec_module(reproduction_table := importlib.util.module_from_spec(_SPEC))


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.lstrip())
    path.chmod(0o755)
    return path


def run(script: Path, *arguments, **environment) -> subprocess.CompletedProcess:
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(["bash", script, *map(str, arguments)], env=environment, capture_output=True, text=True)


def test_shellcheck():
    scripts = [*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"]
    assert len(scripts) > 6
    shellcheck = Path(sys.executable).with_name("shellcheck")
    check = subprocess.run([shellcheck, "--external-sources", *scripts], cwd=LAUNCH.parent, stdout=subprocess.PIPE)
    assert check.returncode == 0, check.stdout.decode()


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda script: script.name)
def test_help_is_what_the_script_begins_with(script):
    if script.name != "environment.sh":  # Which isn't called.
        told = run(script, "--help")
        head = script.read_text().partition("\nset -")[0].splitlines()[1:]
        expected = [line.removeprefix("#").removeprefix(" ") for line in head]
        assert (told.returncode, told.stdout.splitlines()) == (0, expected)


# slurm.sbatch

SRUN = """
#!/usr/bin/env bash
# Two tasks, and the highest of their codes, as Slurm's.
printf '%s\\n' "$@" > "$FAKE/srun"
while [[ $1 == --* ]]; do shift; done
highest=0
for SLURM_PROCID in 0 1; do
    export SLURM_PROCID
    "$@" || { code=$?; ((code > highest)) && highest=$code; }
done
exit "$highest"
"""


@pytest.fixture
def slurm(tmp_path):
    """sbatch in a checkout, called with the codes of the two tasks and the state of the job after them."""
    executable(tmp_path / "bin/srun", SRUN)
    executable(tmp_path / "bin/squeue", '#!/bin/sh\necho "$STATE"\n')
    executable(tmp_path / "bin/scontrol", '#!/bin/sh\necho "$@" > "$FAKE/scontrol"\n')
    python = "#!/bin/sh\nset -- $CODES\nshift $SLURM_PROCID\nexit $1\n"
    python = executable(tmp_path / "checkout/.venv/bin/python", python)

    def call(codes: str = "0 0", state: str = "RUNNING", *arguments: str):
        environment = dict(PATH=f"{tmp_path}/bin:{os.environ['PATH']}", FAKE=tmp_path, CODES=codes, STATE=state)
        environment |= dict(SLURM_SUBMIT_DIR=tmp_path / "checkout", SLURM_JOB_ID="7")
        return run(LAUNCH / "slurm.sbatch", *arguments, **environment)

    call.folder, call.python = tmp_path, python
    return call


@pytest.mark.parametrize(
    ("codes", "state", "code", "requeued"),
    [
        ("0 0", "RUNNING", 0, False),
        ("143 143", "RUNNING", 143, True),  # The time limit comes, or a job of higher priority.
        ("75 137", "RUNNING", 255, False),
        ("75 75", "RUNNING", 75, True),
        ("143 75", "RUNNING", 143, True),
        ("2 75", "RUNNING", 2, False),  # srun says 75 for these by itself.
        ("1 143", "RUNNING", 1, False),
        ("130 130", "RUNNING", 130, False),
        ("143 143", "COMPLETING", 143, False),  # Cancelled.
    ],
)
def test_slurm_requeues_what_was_interrupted(slurm, codes, state, code, requeued):
    done = slurm(codes, state)
    assert done.returncode == code, done.stderr
    assert (slurm.folder / "scontrol").exists() == requeued
    assert not requeued or (slurm.folder / "scontrol").read_text() == "requeue 7\n"


def test_slurm_passes_arguments_on(slurm):
    assert slurm("0 0", "RUNNING", "--config", "my config's.py", "--workdir", "/shared/$x").returncode == 0
    words = (slurm.folder / "srun").read_text().split("\n")
    assert words[:3] == ["--kill-on-bad-exit=0", "--wait=0", "--cpu-bind=none"]
    command = [
        ".venv/bin/python",
        "-m",
        "bert_jax",
        "pretrain",
        "--config",
        "my config's.py",
        "--workdir",
        "/shared/$x",
    ]
    assert words[-11:] == ["bert-jax", *command, "--distributed", ""]
    directives = re.findall(r"^#SBATCH (.*)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    # To the processes: passed on by srun, SIGTERM would end them unsaved.
    assert {"--requeue", "--signal=TERM@300", "--ntasks-per-node=1", "--open-mode=append"} <= set(directives)
    slurm.python.unlink()
    done = slurm()
    assert (done.returncode, done.stderr.count("\n")) == (
        2,
        1,
    ) and "has no .venv; submit from the checkout" in done.stderr


# processes.sh

PYTHON = f"""
#!{sys.executable}
import os, signal, sys, time
index = int(sys.argv[-1])
def end(number, _):
    print("saving", flush=True)
    time.sleep(0.2)
    print("saved")
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
group = "own group" if os.getpgrp() == os.getpid() else "group of the script"  # Where Ctrl-C would come twice.
print(*sys.argv[1:], os.environ.get("XLA_FLAGS"), group, flush=True)
if "CODES" in os.environ:
    time.sleep(0.3 * (1 - index))
    sys.exit(int(os.environ["CODES"].split()[index]))
print("careful", file=sys.stderr, flush=True)
time.sleep(30)
"""


@pytest.fixture
def python(tmp_path):
    return executable(tmp_path / "python", PYTHON)


@pytest.mark.parametrize(("codes", "code"), [("0 0", 0), ("75 2", 2), ("0 75", 75)])
def test_processes_get_their_index_and_the_first_code_counts(python, codes, code):
    arguments = ["pretrain", "--workdir", "a b"]
    done = run(
        LAUNCH / "processes.sh", 2, *arguments, PYTHON=python, CODES=codes, DEVICES=4, PORT=9000, XLA_FLAGS="--x"
    )
    assert done.returncode == code
    common = "-m bert_jax pretrain --workdir a b --distributed --coordinator localhost:9000 --processes 2 --process"
    devices = "--x --xla_force_host_platform_device_count=4 own group"
    assert sorted(done.stdout.splitlines()) == [f"[{i}] {common} {i} {devices}" for i in range(2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_pass_signals_on_and_wait(python, number):
    environment = {**os.environ, "PYTHON": str(python)}
    command = ["bash", LAUNCH / "processes.sh", "2", "pretrain"]

    def heed():  # Started in the background, the tests ignore SIGINT, and what they start would.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=heed) as script:
        lines = [script.stdout.readline() for _ in range(4)]
        script.send_signal(number)
        rest = script.stdout.read()
    assert script.returncode == 128 + number
    assert sorted(lines)[1::2] == ["[0] careful\n", "[1] careful\n"]
    assert sorted(rest.splitlines()) == ["[0] saved", "[0] saving", "[1] saved", "[1] saving"]


@pytest.mark.parametrize("arguments", [[], ["pretrain"], ["0", "pretrain"], ["2"]])
def test_processes_are_counted(arguments, python):
    done = run(LAUNCH / "processes.sh", *arguments, PYTHON=python)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and done.stderr.startswith("usage: ")


# reproduce_bert_base.sh

SUMMARIES = {
    "cola": {"1e-5": {"dev_matthews": [50.0, 51.0]}, "2e-5": {"dev_matthews": [58.0, 60.0]}},
    "mrpc": {
        "2e-5": {"dev_accuracy": [86.0], "dev_f1": [89.0]},
        "3e-5": {"dev_accuracy": [85.0], "dev_f1": [90.0]},
    },
    "squad": {"3e-5": {"dev_exact_match": [81.0], "dev_f1": [88.25]}},
}


def test_every_row_is_run_and_stands_in_the_table(tmp_path):
    """With a stand-in for bert_jax, and the table over what it would have left."""
    fake = f'#!/bin/bash\n[ "$1 $2" = "-m bert_jax" ] && echo "ran ${{@:3}}" && exit\nexec {sys.executable} "$@"\n'
    python = executable(tmp_path / "python", fake)
    for name in ("CoLA", "MRPC", "squad", "conll2003"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for task, rates in SUMMARIES.items():
        found = {
            rate: {n: {"mean": sum(v) / len(v), "deviation": 1.5, "runs": v} for n, v in scores.items()}
            for rate, scores in rates.items()
        }
        file = tmp_path / "table" / task / "summary.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"devices": "8 x TPU", "rates": found}))
    script, folders = LAUNCH / "reproduce_bert_base.sh", ["--data", tmp_path / "data", "--workdir", tmp_path / "table"]
    done = run(
        script,
        *folders,
        "--init",
        "uncased",
        "--cased",
        "cased",
        "--rates",
        "1e-5 2e-5",
        "--",
        "--epochs",
        1,
        PYTHON=python,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    cola = (
        f"finetune --workdir {tmp_path}/table/cola --task.folder {tmp_path}/data/CoLA --seeds 5 --config finetune_glue"
    )
    assert f"ran {cola} --task cola --init uncased --learning-rates 1e-5 2e-5 --epochs 1" in lines
    assert any(
        line.startswith("ran finetune") and "--init cased" in line and "document-context" in line for line in lines
    )
    assert f"rte: {tmp_path}/data has no RTE, left out" in lines
    assert lines[-5:] == [
        "| cola | dev_matthews | 59.0 ± 1.5 |  | 52.1 | +6.9 to test | 2e-5 | 2 | 8 x TPU |",
        "| mrpc | dev_accuracy | 86.0 ± 1.5 | 86.7 |  | -0.7 | 2e-5 | 1 | 8 x TPU |",
        "| mrpc | dev_f1 | 89.0 ± 1.5 |  | 88.9 | +0.1 to test | 2e-5 | 1 | 8 x TPU |",
        "| squad | dev_exact_match | 81.0 ± 1.5 | 80.8 |  | +0.2 | 3e-5 | 1 | 8 x TPU |",
        "| squad | dev_f1 | 88.2 ± 1.5 | 88.5 |  | -0.2 | 3e-5 | 1 | 8 x TPU |",
    ]
    # Without a model, pretraining comes first.
    done = run(script, *folders, "--corpus", "a/*.txt", "--vocab", "v.txt", PYTHON=python)
    first = done.stdout.splitlines()[0]
    assert (
        first.startswith("ran pretrain --config pretrain_base")
        and "--corpus.files a/*.txt --tokenizer.path v.txt" in first
    )
    assert f"--init {tmp_path}/table/pretrained" in done.stdout
    for arguments, message in (([], "--workdir"), ([*folders], "give --init"), (["--what"], "no option --what")):
        done = run(script, *arguments, PYTHON=python)
        assert (done.returncode, message in done.stderr, done.stderr.count("\n")) == (2, True, 1)


SPREAD = {"mean": 1.0, "deviation": 0.0, "runs": [1.0]}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"devices": "cpu", "rates": {"1e-5": {}}}', r"rates.1e-5.dev_matthews is missing, must be an object"),
        ('{"devices": "cpu", "rates": {}}', "it has no rates"),
        ('{"devices": "cpu", "rates"', "Expecting"),
        (json.dumps({"rates": {"1e-5": {"dev_matthews": SPREAD}}}), "devices is missing"),
        (
            json.dumps({"devices": "cpu", "rates": {"1": {"dev_matthews": SPREAD | {"mean": "x"}}}}),
            "rates.1.dev_matthews.mean is 'x'",
        ),
    ],
)
def test_a_damaged_summary_is_named(tmp_path, content, what):
    file = tmp_path / "cola/summary.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(InputError, match=rf"cola/summary.json: damaged \({what}.*\); remove it, and the command"):
        reproduction_table.main(tmp_path)


def test_a_score_without_a_value_is_the_best_of_none(tmp_path, capsys):
    rates = {"1e-5": {"dev_matthews": SPREAD | {"mean": None}}, "2e-5": {"dev_matthews": SPREAD}}
    file = tmp_path / "cola/summary.json"
    file.parent.mkdir()
    for found, figure in ((rates, "| 1.0 ± 0.0 |"), ({"1e-5": rates["1e-5"]}, "| nan ± 0.0 |")):
        file.write_text(json.dumps({"devices": "cpu\x1b[2J", "rates": found}))
        reproduction_table.main(tmp_path)
        said = capsys.readouterr().out
        assert figure in said and "\x1b" not in said


# gke_tpu.yaml


def test_jobset():
    jobset = yaml.safe_load((LAUNCH / "gke_tpu.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = jobset["spec"]
    assert spec.keys() == {"network", "failurePolicy", "replicatedJobs"}
    assert spec["network"] == {"enableDNSHostnames": True}
    bad_input = {"name": "badInput", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    assert spec["failurePolicy"] == {"maxRestarts": 100, "rules": [bad_input]}
    (slices,) = spec["replicatedJobs"]
    assert slices.keys() == {"name", "replicas", "template"} and slices["template"].keys() == {"spec"}
    job = slices["template"]["spec"]
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "bert-slice-0"}, "spec": job}
    kubernetes_validate.validate(whole, kubernetes_validate.latest_version(), strict=True)
    (container,) = job["template"]["spec"]["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    exit_codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert rule == {"action": "FailJob", "onExitCodes": exit_codes}
    assert (job["backoffLimit"], job["completionMode"]) == (0, "Indexed")
    assert job["parallelism"] == job["completions"] == 16 * 16 // container["resources"]["limits"]["google.com/tpu"]
    assert container["args"][:2] == ["pretrain", "--distributed"]


# environment.sh


def test_each_thing_is_installed_once_and_after_another_too(tmp_path):
    for name in ("setup.cfg", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    executable(tmp_path / ".venv/bin/pip", '#!/bin/sh\nfor last; do :; done\necho "$last" >> calls\n')
    script = executable(tmp_path / "both.sh", f'set -e\ncd "{tmp_path}"\n. "{LAUNCH}/environment.sh"\ninstall "$1"\n')
    for target in (".", ".[test]", ".", ".[test]"):
        assert run(script, target, PYTHON=sys.executable).returncode == 0
    assert (tmp_path / "calls").read_text().split() == [".", ".[test]"]
    (tmp_path / "setup.cfg").write_text("changed")
    run(script, ".[test]", PYTHON=sys.executable)
    assert (tmp_path / "calls").read_text().split() == [".", ".[test]", ".[test]"]
