"""Sensitivity of ``edge.drift``: ``python benchmarks/drift_power.py MODEL --data DATA --out F [--split valid|test]``.

Describes the training patches as ``histoedge compress`` does and watches streams of patches of another split: all its
patches, and groups whose patches are more similar than those of one slide. Each stream is watched unchanged and after
each of several faults. The rule of ``edge.drift`` was chosen on ``valid``. The cost is the time of ``Watch.add`` and,
for comparison, of MODEL's ``predict``: batch 1, one thread.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from record import Row, changed_options, run_script, write_record
from targets import TIMED_PATCHES

from histoedge import data, edge
from histoedge.benchmark import environment
from histoedge.data import perturb
from histoedge.edge import drift
from histoedge.edge.manifest import Manifest
from histoedge.lab import appearance
from histoedge.progress import on_terminal

GROUPS = 20
TIMED_TURNS = 20

SORT_KEYS: Mapping[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    "red less blue": lambda statistics: statistics["red"] - statistics["blue"],
    "haematoxylin": lambda statistics: statistics["haematoxylin"],
    "eosin": lambda statistics: statistics["eosin"],
    "brightness": lambda statistics: statistics["red"] + statistics["green"] + statistics["blue"],
}
"""Sort keys: patches are sorted by one of these and cut into ``GROUPS`` groups of similar patches."""

FAULTS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "red and blue exchanged": lambda patches: np.ascontiguousarray(patches[..., ::-1]),
    **{name: partial(perturb.perturbed, name=name) for name in perturb.PERTURBATIONS},
    "light x 0.7": lambda patches: scaled(patches, 0.7, 0.7, 0.7),
    "light x 1.3": lambda patches: scaled(patches, 1.3, 1.3, 1.3),
    "white balance: red x 1.1, blue x 0.8": lambda patches: scaled(patches, 1.1, 1.0, 0.8),
    "every second pixel (half the magnification)": lambda patches: np.tile(patches[:, ::2, ::2], (1, 2, 2, 1)),
    "every pixel twice (twice the magnification)": lambda patches: (
        patches[:, 24:72, 24:72].repeat(2, axis=1).repeat(2, axis=2)
    ),
}


def scaled(patches: np.ndarray, *factors: float) -> np.ndarray:
    """Multiply red, green and blue by a factor each; round and clip to 255."""
    return np.asarray(np.clip(np.rint(patches * np.array(factors, np.float32)), 0, 255), np.uint8)


def drift_row(patches: str, streams: list[np.ndarray], manifest: Manifest) -> Row:
    """Return how many streams are reported as drift, and the message of the first of them.

    Args:
        patches: description of the streams.
        streams: uint8 (N, 96, 96, 3) each.
        manifest: contains the statistics of the training patches.
    """
    reports = []
    for stream in streams:
        watch = drift.Watch(manifest, step=1)
        watch.add(stream)
        reports.append(watch.report())
    drifted = [report for report in reports if report.drifted]
    share, name = max(
        (share, f"{statistic.name} {side}")
        for report in reports
        for statistic in report.statistics
        for side, share in (("below", statistic.share_below), ("above", statistic.share_above))
    )
    return {
        "patches": patches,
        "streams": len(streams),
        "called_drift": len(drifted),
        "largest_share": share,
        "of": name,
        "said_of_the_first": drifted[0].sentence.partition(": ")[2].partition(" (")[0] if drifted else "none",
    }


def cost_us(runner: edge.ExportedRunner, manifest: Manifest, patches: np.ndarray) -> tuple[float, float]:
    """Return microseconds per patch of ``Watch.add`` and of ``predict``, batch 1: medians over turns."""
    watch, medians = drift.Watch(manifest), []
    calls: tuple[Callable[[np.ndarray], object], ...] = (watch.add, runner.predict)
    for call in calls:
        turns = []
        for _ in range(TIMED_TURNS):
            before = time.perf_counter()
            for patch in patches:
                call(patch[None])
            turns.append((time.perf_counter() - before) / len(patches))
        medians.append(1e6 * float(np.median(turns)))
    return medians[0], medians[1]


def drift_power_command() -> None:
    """Write a row for each kind of stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="exported file")
    parser.add_argument("--data", required=True, help="data set; train is described")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="split that is watched")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    arguments = parser.parse_args()
    machine = environment.this_machine()
    loaded = data.load(arguments.data, splits=("train", arguments.split))
    runner = edge.load(arguments.model)
    manifest = dataclasses.replace(runner.manifest, input_statistics=appearance.describe(loaded["train"]))
    patches = np.asarray(loaded[arguments.split].patches[:])
    statistics = drift.statistics(patches)
    groups = {
        name: np.array_split(np.argsort(key(statistics), kind="stable"), GROUPS) for name, key in SORT_KEYS.items()
    }
    rows = [drift_row("as they are", [patches], manifest)]
    rows += [
        drift_row(f"as they are, alike in {name}", [patches[group] for group in cut], manifest)
        for name, cut in groups.items()
    ]
    with on_terminal() as show:
        for done, (name, fault) in enumerate(FAULTS.items(), start=1):
            changed = fault(patches)
            rows.append(drift_row(name, [changed], manifest))
            similar = [changed[group] for group in groups["red less blue"]]
            rows.append(drift_row(f"{name}, alike in red less blue", similar, manifest))
            show("drift, faults", done, len(FAULTS))
    watching, predicting = cost_us(runner, manifest, patches[:TIMED_PATCHES])
    write_record(
        arguments.out,
        kind="drift",
        command="python benchmarks/drift_power.py MODEL --data DATA --out F"
        + changed_options(parser, arguments, "split"),
        about=f"Streams of `{arguments.split}`: {len(patches):,} patches of other slides than the training patches, "
        f"all in one stream, or sorted by a statistic and cut into {GROUPS} groups of similar patches (the slides are "
        f"unknown). All patches are watched. A stream is reported as drift when more than {drift.LARGEST_SHARE:.0%} of "
        "its patches are beyond the 1st or 99th percentile of a statistic in training; `largest_share` is the largest "
        f"such share. Watching one patch in {drift.STEP}, `Watch.add` takes {watching:.1f} us per patch on average; "
        f"`predict` of {runner.manifest.network} {arguments.model.name} on {runner.runtime} takes {predicting:.1f} us.",
        machine=machine,
        rows=rows,
    )


if __name__ == "__main__":
    run_script(drift_power_command)
