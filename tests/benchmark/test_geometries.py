"""A benchmark of files with other patches, and of files that compute single patches."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from histoedge.benchmark import BenchJob, bench, read_results
from histoedge.benchmark.measure import bench_to
from histoedge.config import BenchPlan
from histoedge.reporting import groups, html

QUICK: dict[str, Any] = {"max_seconds": 0.0, "rounds": 2, "runs_per_round": 2, "warmup_runs": 1}
PLAN: dict[str, Any] = {"runtimes": ("onnxruntime",), "timeout_s": 60, **QUICK}


@pytest.fixture
def split_of_64_px() -> SimpleNamespace:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 80).astype(np.uint8)
    patches = random.integers(0, 256, (80, 64, 64, 3)) * (0.5 + 0.3 * labels[:, None, None, None])
    shape = patches.clip(0, 255).astype(np.uint8)
    return SimpleNamespace(name="test", patches=shape, labels=labels, slides=None, content_hash="c" * 64)


def test_fields_without_a_meaning_are_listed_and_the_others_measured(
    split_of_64_px: SimpleNamespace, mean_red_of: Callable[..., Path], mobilenet: Callable[..., Path], mean_red: Path
) -> None:
    models = [mean_red_of(64, 16), mobilenet("single", patch_px=64, label_px=32), mean_red]
    plan = BenchPlan(field_px=(96, 160, 48), integer_peak=False, **PLAN)
    rows = {(row.model, row.field_px): row for row in bench(BenchJob(models=models, plan=plan, split=split_of_64_px))}
    dense, single = "mean_red_64.onnx", "single.onnx"
    measured = {key for key, row in rows.items() if row.measured}
    assert measured == {(dense, 64), (dense, 160), (single, 64)}
    assert rows[dense, 160].n_outputs == 7**2
    assert rows[dense, 64].of_patches
    assert not rows[dense, 160].of_patches
    assert rows[single, 64].auc is not None
    assert {row.status for key, row in rows.items() if key not in measured} == {"unavailable"}
    assert rows[single, 160].reason == (
        "the file computes single patches (edge_mode patch); a field of 160 px is cut into its patches"
    )
    assert rows[dense, 48].reason == "a field of 48 px is smaller than a patch of 64 px"
    assert rows["mean_red.onnx", 64].reason == "the file expects patches of 96 px, the data has patches of 64 px"
    titles = [(group.title, group.of_fields) for group in groups.groups(rows.values())]
    assert titles[:2] == [("single-stream (batch 1)", False), ("160 px", True)]


def test_the_integer_peak_and_the_sheets_of_flips_do_not_depend_on_the_patches(
    split_of_64_px: SimpleNamespace, mean_red_of: Callable[..., Path], sign: Callable[..., Path], tmp_path: Path
) -> None:
    fp32 = mean_red_of(64, 16, classes=["benign", "in situ"], threshold=0.57, recipe="fp32")
    plan = BenchPlan(integer_peak=True, **PLAN)
    out = tmp_path / "bench.json"
    bench_to(out, BenchJob(models=[fp32], plan=plan, split=split_of_64_px, flips=tmp_path / "flips"))
    results = read_results(out)
    (row,) = results.measurements
    assert (row.status in ("ok", "unsettled"), row.field_px) == (True, 64)
    assert json.loads(out.read_text())["environment"]["integer_peak_gmacs"]["1"]
    assert row.peak_share is not None
    assert "64" in html(results)
