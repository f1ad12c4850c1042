"""The environment: the name of a machine's folder, the commit, and what may be published."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from histoedge.benchmark import environment
from histoedge.data import Split, synthetic

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
XEON = {"cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "cpu_flags": ["avx2", "avx512f", "avx512_vnni"]}
HERE = {"cpus_allowed": 4, "cpus_in_machine": 64, "machine": "x86_64"}


@pytest.mark.parametrize(
    ("described", "name"),
    [
        (XEON, "intel-xeon-avx512-vnni-4-cores"),
        ({**XEON, "cpu_flags": [*XEON["cpu_flags"], "amx_int8"]}, "intel-xeon-amx-4-cores"),
        ({**XEON, "cpu_flags_refused": ["amx_int8"]}, "intel-xeon-amx-4-cores-without-amx"),
        ({**XEON, "gpus": ["NVIDIA H100 80GB HBM3"]}, "intel-xeon-avx512-vnni-4-cores-nvidia-h100"),
        ({"cpu": "AMD EPYC 7763 64-Core Processor", "cpu_flags": ["avx2"]}, "amd-epyc-avx2-4-cores"),
        ({"cpu": "aarch64", "cpu_flags": ["asimd", "asimddp"]}, "aarch64-dotprod-4-cores"),
        ({"cpu": "arm", "cpu_flags": [], "cpus_allowed": None, "machine": "arm64"}, "arm-arm64-64-cores"),
    ],
)
def test_the_name_of_a_machine_contains_maker_instructions_and_cpus(described: dict[str, object], name: str) -> None:
    assert environment.machine_name({**HERE, **described}) == name


def test_the_name_of_this_machine_is_a_valid_folder_name() -> None:
    name = environment.machine_name(environment.this_machine())
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name.endswith(("-cores", "-without-amx")) or "-cores-" in name


@pytest.mark.skipif(not RESULTS.is_dir(), reason="not a checkout")
def test_committed_results_are_in_the_folder_of_their_machine() -> None:
    for results in RESULTS.glob("*/*.json"):
        described = json.loads(results.read_text()).get("environment")
        if described and "cpu_flags_refused" in described:  # older results do not record refused flags
            assert results.parent.name == environment.machine_name(described)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_a_checkout_is_marked_if_files_were_changed(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    assert environment.commit(tmp_path) is None  # nothing committed
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    git(tmp_path, "tag", "-m", "named", "v1")
    clean = environment.commit(tmp_path)
    assert clean is not None
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (tmp_path / "results.json").write_text("untracked")
    assert environment.commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("2")
    assert environment.commit(tmp_path) == f"{clean}+"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_reading_the_commit_starts_no_program_from_the_settings_of_the_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    hook.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(hook))
    subprocess.run(["git", "-C", tmp_path, "status"], check=True, capture_output=True)
    assert (tmp_path / "started").exists()  # git itself starts it
    (tmp_path / "started").unlink()
    assert environment.commit(tmp_path)
    assert not (tmp_path / "started").exists()


def test_an_installed_package_and_a_machine_without_git_have_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment.commit(tmp_path) is None
    (tmp_path / ".git").write_text("gitdir: /nowhere")
    assert environment.commit(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert environment.commit(Path(__file__).parents[2]) is None


def test_the_date_contains_no_time() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", environment.this_machine()["date"])


def test_the_subject_contains_only_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic_split = synthetic.generate("test", patches=16, seed=0)
    models = [tmp_path / run / "models" / "int8.onnx" for run in ("edge", "nano")]
    assert environment.subject(models, synthetic_split) == {"run": "edge, nano", "data": "synthetic", "patches": 16}
    real_split = Split("test", np.zeros((2, 96, 96, 3), np.uint8), np.array([0, 1], np.uint8), ["a", "b"])
    assert environment.subject(models[:1], real_split) == {"run": "edge", "data": None, "patches": 2}
    assert environment.subject([tmp_path / "int8.onnx"], synthetic_split)["run"] is None
    monkeypatch.setenv("HOME", str(tmp_path / "edge"))
    assert environment.subject(models, synthetic_split)["run"] is None
