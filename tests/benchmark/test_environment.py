"""A machine's results lie in a folder whose name its environment gives."""

import json
from pathlib import Path

import pytest

from histoedge.benchmark import environment

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
def test_a_machine_is_named_by_maker_kernels_and_cpus(described: dict[str, object], name: str) -> None:
    assert environment.machine_name({**HERE, **described}) == name


def test_this_machine_has_a_name_that_a_folder_can_have() -> None:
    name = environment.machine_name(environment.describe())
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name.endswith(("-cores", "-without-amx")) or "-cores-" in name


@pytest.mark.skipif(not RESULTS.is_dir(), reason="not a checkout")
def test_committed_results_lie_in_the_folder_of_their_machine() -> None:
    for results in RESULTS.glob("*/*.json"):
        described = json.loads(results.read_text()).get("environment")
        if described and "cpu_flags_refused" in described:  # older results do not tell what was refused
            assert results.parent.name == environment.machine_name(described)
