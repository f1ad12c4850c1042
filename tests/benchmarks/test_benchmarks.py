"""The benchmark scripts: rows, judgements and checks that need no long measurement."""

import errno
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from histoedge import edge
from histoedge.metrics import Interval

FOLDER = Path(__file__).parents[2] / "benchmarks"

Script = Callable[[str], ModuleType]
Section = Callable[[dict[str, Any]], str]


@pytest.fixture
def section(script: Script, tmp_path: Path) -> Section:
    """``section(document)``: the section of a results document on the page of its machine."""

    def text(document: dict[str, Any]) -> str:
        path = tmp_path / "machine" / "results.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, sort_keys=True))  # as files.write_json
        return "\n".join(script("sections").section(script("committed").ResultsFile(path)))

    return text


@pytest.fixture
def peers(script: Script) -> ModuleType:
    return script("judgement")


def row(rms_logit: float, flips: int) -> dict[str, Any]:
    return {"runtime": "litert"} | {name: {"rms_logit": rms_logit, "flips": flips} for name in ("valid", "test")}


def gain(lo: float, hi: float) -> dict[str, float]:
    return {"d_auc": (lo + hi) / 2, "d_auc_lo": lo, "d_auc_hi": hi, "d_auc_se": (hi - lo) / 3.92}


@pytest.mark.parametrize(
    ("valid", "test", "trained", "verb"),
    [
        (gain(0.001, 0.003), gain(0.002, 0.004), row(0.20, 20), "beats"),  # a higher AUC on both
        (gain(0.001, 0.003), gain(-0.001, 0.004), row(0.20, 20), "does not beat"),  # on valid alone
        (gain(-0.001, 0.001), gain(-0.001, 0.001), row(0.05, 8), "beats"),  # as good, and closer to fp32
        (gain(-0.001, 0.001), gain(-0.001, 0.001), row(0.05, 10), "does not beat"),  # as many flips
        (gain(-0.001, 0.001), gain(-0.003, -0.001), row(0.05, 8), "does not beat"),  # closer, and worse
    ],
)
def test_the_words_follow_the_figures(
    peers: ModuleType, valid: dict[str, float], test: dict[str, float], trained: dict[str, Any], verb: str
) -> None:
    words = peers.training_words({"valid": valid, "test": test}, trained, row(0.10, 10))
    assert words.startswith(f"Quantisation-aware training {verb} int8ptq here")
    assert f"{trained['test']['flips']} against 10" in words


def test_the_best_peer_is_chosen_on_valid_and_the_table_lists_it(peers: ModuleType, section: Section) -> None:
    random = np.random.default_rng(0)
    labels = {"valid": np.arange(40) % 2, "test": np.arange(60) % 2}
    noise = {name: random.normal(0, 1, len(truth)) for name, truth in labels.items()}

    def contender(name: str, runtime: str, ms: float, signal: float, *, peer: bool = False) -> Any:
        described = {"name": name, "runtime": runtime, "peer": peer, "made_by": "maker 1.0", "file": f"{name}.onnx"}
        described |= {"runtime_version": "1.0", "kernels": "mlas", "size_bytes": 1000}
        logits = {split: truth * signal + noise[split] for split, truth in labels.items()}
        return SimpleNamespace(row=described, rounds_ms=[np.full(3, ms)] * 2, logits=logits)

    contenders = [contender(name, "onnxruntime", 2.0, 1.0) for name in ("fp32", "int8", "int8ptq")]
    contenders += [contender("good", "onnxruntime", 4.0, 2.0, peer=True)]
    contenders += [contender("quick", "onnxruntime", 1.0, 0.5, peer=True)]
    rows, verdict = peers.judge(contenders, labels)
    assert verdict["best_peer"]["name"] == "good"
    assert verdict["int8_less_best_peer"]["d_auc"] < 0
    assert rows[1]["p50_ratio"] == 2.0
    assert "slower than quick: 2.000 [2.000, 2.000]" in verdict["words"][1]
    assert "does not beat" in verdict["words"][-1]
    text = section({"kind": "peers", "command": "python benchmarks/peers", "rows": rows, "verdict": verdict})
    assert all(word in text for word in verdict["words"])
    assert text.count("maker 1.0") == 2
    networks = [contender(name, "onnxruntime", 8.0, 1.0) for name in ("theirs", "trained")]
    for network in networks:
        network.row |= {"params": 1000, "macs": 2_000_000, "trained": network.row["name"] == "trained"}
        network.logits = network.logits if network.row["trained"] else {}
    others = peers.judge_others(networks, contenders, labels)
    assert [row["p50_ratio"] for row in others] == [4.0, 4.0]  # of our int8
    assert others[0]["test"] is None
    rows[-1] |= {"settings": "per tensor", "candidates": [{"settings": "per tensor", "auc_valid": 0.75}]}
    document = {"kind": "peers", "command": "python benchmarks/peers", "rows": rows, "verdict": verdict}
    text = section({**document, "networks": others})
    assert "| theirs, untrained | theirs.onnx | onnxruntime 1.0 | 1,000 | 2.0 | 1.0 |" in text
    assert "| trained | trained.onnx | onnxruntime 1.0 | 1,000 | 2.0 | 1.0 |" in text
    assert "quick (maker 1.0; per tensor)" in text
    assert "quick: the settings with the highest AUC on valid, of per tensor: 0.7500." in text


def test_coverage_counts_intervals_that_contain_the_truth_and_the_misses_by_side(script: Script) -> None:
    coverage = script("coverage")
    intervals = iter([(0.4, 0.6), (0.5, 0.7), (0.6, 0.7), (0.1, 0.2)])

    def draw(random: np.random.Generator) -> Interval:
        lo, hi = next(intervals)
        return Interval((lo + hi) / 2, lo, hi)

    case = coverage.Truth(interval="by hand", of="four", n_patches=1, true=0.5, draw=draw, draws=4)
    row = coverage.coverage_row(case, seed=0)
    assert [row[key] for key in ("coverage", "too_low", "too_high")] == [0.5, 0.25, 0.25]
    assert row["mean_width"] == pytest.approx(0.15)


def test_the_committed_coverage_of_delong_is_93_to_97_percent() -> None:
    for results in FOLDER.glob("results/*/coverage.json"):
        rows = [row for row in json.loads(results.read_text())["rows"] if "slides" not in row["of"]]
        delong = [row["coverage"] for row in rows if row["interval"].endswith("DeLong")]
        assert len(delong) >= 8
        assert all(0.93 <= share <= 0.97 for share in delong)


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="AMX is of x86, asked of Linux"
)
def test_amx_is_refused_to_a_command_and_its_children() -> None:
    ask = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(158, 0x1023, 18), ctypes.get_errno())"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    command = [sys.executable, str(FOLDER / "without_amx.py"), sys.executable, "-c", child]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-1", str(errno.EPERM)]


def test_the_ratio_test_is_judged_by_how_often_it_is_right(script: Script, section: Section) -> None:
    aa = script("aa")
    noisy, slow = aa.Interval(1.0, 0.98, 1.02), aa.Interval(1.05, 1.03, 1.07)
    alike, slowed = aa.judge_ratios([{"second": noisy, "slowed": slow}] * 45 + [{"second": slow, "slowed": noisy}] * 5)
    assert (alike["slower"], alike["asked"], alike["holds"]) == (5, "at most 3 differ", "no")
    assert (slowed["slower"], slowed["asked"], slowed["holds"]) == (45, "at least 45 slower", "yes")
    text = section({"kind": "aa", "command": "python benchmarks/aa.py", "about": "", "rows": [alike, slowed]})
    assert "| slowed by 5% | 50 | 45 |" in text


@pytest.mark.parametrize("fresh", [True, False])
def test_a_slowed_file_answers_in_the_same_rounds_as_the_file_itself(
    script: Script, mean_red: Path, tmp_path: Path, fresh: bool
) -> None:
    aa = script("aa")
    np.save(tmp_path / "timed.npy", np.zeros((2, 96, 96, 3), np.uint8))
    bench = aa.Bench(rounds=2, runs_per_round=3, warmup_runs=0, fresh=fresh)
    ratios = aa.ratios(mean_red, "onnxruntime", tmp_path / "timed.npy", bench, seed=0)
    assert all(0 < ratio.lo <= ratio.value <= ratio.hi for ratio in ratios.values())
    assert list(ratios) == ["second", "slowed"]


def test_a_slowed_runner_returns_the_logits_of_the_runner(script: Script, mean_red: Path) -> None:
    slowed = script("aa").open_slowed({"model": str(mean_red), "runtime": "onnxruntime", "threads": 1})
    assert slowed.predict(np.full((1, 96, 96, 3), 51, np.uint8)).item() == pytest.approx(0.2)
    assert slowed.runtime == "onnxruntime"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_bare_call_returns_the_logits_of_predict_and_both_are_timed(
    script: Script, mean_red: Path, runtime: str
) -> None:
    pytest.importorskip(runtime)
    overhead = script("overhead")
    runner = edge.load(mean_red, runtime=runtime)
    patch = np.full((1, 96, 96, 3), 51, np.uint8)
    bare = overhead.bare(runner)
    assert bare(patch).item() == runner.predict(patch).item() == pytest.approx(0.2)
    times = overhead.time_both((runner.predict, bare), [patch], rounds=2, calls_per_round=3, seed=0)
    assert [ms.shape for ms in times] == [(2, 3), (2, 3)]


def test_the_bare_call_of_litert_returns_the_logits_of_predict(script: Script) -> None:
    pytest.importorskip("ai_edge_litert")
    model = FOLDER.parent / "exported" / "nano" / "models" / "int8.tflite"
    runner = edge.load(model, runtime="litert")
    patch = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    assert script("overhead").bare(runner)(patch).item() == runner.predict(patch).item()


@pytest.mark.parametrize(
    ("bare_us", "predict_us", "holds"),
    [(50, 52, "yes"), (50, 54, "no"), (1000, 1020, "yes"), (1000, 1040, "no")],  # 3 us; 3 %
)
def test_overhead_holds_up_to_the_larger_of_3_percent_and_3_us(
    script: Script, section: Section, mean_red: Path, bare_us: float, predict_us: float, holds: str
) -> None:
    overhead = script("overhead")
    runner = edge.load(mean_red, runtime="onnxruntime")
    row = overhead.overhead_row(mean_red, runner, np.full((4, 5), predict_us / 1e3), np.full((4, 5), bare_us / 1e3))
    assert row["holds"] == holds
    assert row["more_us"] == pytest.approx(predict_us - bare_us)
    text = section({"kind": "overhead", "command": "F", "about": "", "columns": list(row), "rows": [row]})
    assert "| model | runtime |" in text


def test_writes_are_told_from_reads_and_failures_in_a_trace(script: Script, tmp_path: Path) -> None:
    calls = (
        '7 openat(AT_FDCWD, "/usr/lib/libm.so.6", O_RDONLY|O_CLOEXEC) = 3',
        f'7 openat(AT_FDCWD, "{tmp_path}/out/a.csv", O_WRONLY|O_CREAT, 0666) = 4',
        '7 openat(AT_FDCWD, "/home/u/.cache/told.db", O_RDWR|O_CREAT, 0644) = 5',
        '7 mkdir("/home/u/.cache", 0700) = -1 EEXIST (File exists)',
        '7 rename("/home/u/.part", "/home/u/a") = 0',
        '7 openat(AT_FDCWD, "/dev/null", O_RDWR) = 6',
    )
    assert script("runtime_versions").writes("\n".join(calls), tmp_path / "out") == [
        "/home/u/.cache/told.db",
        "/home/u/.part",
    ]


def test_a_synthetic_slide_has_the_requested_tissue_and_levels(script: Script, tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    from histoedge.scanning import readers

    maker = script("slidemaker")
    maker.write_slide(tmp_path / "slide.tif", side_px=6000, tissue=0.15)
    opened = readers.open_slide(tmp_path / "slide.tif")
    assert [level[:2] for level in opened.levels] == [(6000, 6000), (3000, 3000), (1500, 1500)]
    assert opened.um_per_px == pytest.approx(maker.UM_PER_PX)
    means = [opened.read(level, 0, 0, *opened.levels[level][:2]).mean((0, 1)) for level in range(3)]
    assert np.abs(np.diff(means, axis=0)).max() < 0.5  # JPEG alone is between the levels
    stained = np.ptp(opened.read(2, 0, 0, 1500, 1500).astype(int), axis=2) > 12
    assert stained.mean() == pytest.approx(0.15, abs=0.03)  # some patches are glass or fat


def test_the_tables_of_slides_follow_each_other(section: Section) -> None:
    tables = [{"about": f"About {name}.", "columns": [name], "rows": [{name: 1.5}]} for name in ("one", "two")]
    text = section({"kind": "slides", "command": "F", "about": "", "tables": tables})
    assert "About one.\n\n| one |\n|---:|\n| 1.5 |\n" in text
    assert "About two.\n\n| two |" in text
