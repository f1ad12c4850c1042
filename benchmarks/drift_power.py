"""What ``edge.drift`` calls drift: ``python benchmarks/drift_power.py MODEL --data DATA --out F [--split valid|test]``.

Describes training patches as ``histoedge compress`` does and watches streams of another split's patches: all of them,
and groups of patches that are more alike than those of one slide; as they are, and after faults of known kinds. The
rule was chosen on ``valid``. The cost is that of ``Watch.add`` beside MODEL's ``predict``, batch 1, one thread.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import data, edge, files
from histoedge.benchmark import environment
from histoedge.data import perturb
from histoedge.edge import drift
from histoedge.edge.errors import HistoedgeError
from histoedge.edge.manifest import Manifest
from histoedge.lab import appearance
from histoedge.progress import on_terminal

KIND = "drift"
GROUPS = 20
TIMED_PATCHES, TIMED_TURNS = 256, 20

ALIKE: Mapping[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    "red less blue": lambda found: found["red"] - found["blue"],
    "haematoxylin": lambda found: found["haematoxylin"],
    "eosin": lambda found: found["eosin"],
    "brightness": lambda found: found["red"] + found["green"] + found["blue"],
}
"""By what patches are sorted and cut into ``GROUPS``: neighbours are alike in it."""

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
    """Red, green and blue times a factor each, rounded, at most 255."""
    return np.asarray(np.clip(np.rint(patches * np.array(factors, np.float32)), 0, 255), np.uint8)


def row(what: str, streams: list[np.ndarray], manifest: Manifest) -> dict[str, Any]:
    """How many of the streams are called drift, and what is said of the first that is."""
    reports = []
    for stream in streams:
        watch = drift.Watch(manifest, every=1)
        watch.add(stream)
        reports.append(watch.report())
    called = [report for report in reports if report.drifted]
    share, name = max(
        (share, f"{one.name} {side}")
        for report in reports
        for one in report.statistics
        for side, share in (("below", one.share_below), ("above", one.share_above))
    )
    return {
        "patches": what,
        "streams": len(streams),
        "called_drift": len(called),
        "largest_share": share,
        "of": name,
        "said_of_the_first": called[0].sentence.partition(": ")[2].partition(" (")[0] if called else "none",
    }


def cost_us(runner: edge.ExportedRunner, manifest: Manifest, patches: np.ndarray) -> tuple[float, float]:
    """Microseconds per patch of ``Watch.add`` and of ``predict``, batch 1, the mean of the stream's calls."""
    watch, found = drift.Watch(manifest), []
    for call in (watch.add, runner.predict):
        turns = []
        for _ in range(TIMED_TURNS):
            before = time.perf_counter()
            for patch in patches:
                call(patch[None])
            turns.append((time.perf_counter() - before) / len(patches))
        found.append(1e6 * float(np.median(turns)))
    return found[0], found[1]


def drift_power_command() -> None:
    """Write a row for every kind of stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    machine = environment.this_machine()
    loaded = data.load(arguments.data, splits=("train", arguments.split))
    runner = edge.load(arguments.model)
    described = appearance.describe(loaded["train"])
    manifest = dataclasses.replace(runner.manifest, input_statistics=described)
    patches = np.asarray(loaded[arguments.split].patches[:])
    found = drift.statistics(patches)
    groups = {name: np.array_split(np.argsort(key(found), kind="stable"), GROUPS) for name, key in ALIKE.items()}
    rows = [row("as they are", [patches], manifest)]
    rows += [
        row(f"as they are, alike in {name}", [patches[group] for group in cut], manifest)
        for name, cut in groups.items()
    ]
    with on_terminal() as show:
        for done, (name, fault) in enumerate(FAULTS.items(), start=1):
            changed = fault(patches)
            rows.append(row(name, [changed], manifest))
            alike = [changed[group] for group in groups["red less blue"]]
            rows.append(row(f"{name}, alike in red less blue", alike, manifest))
            show("drift, faults", done, len(FAULTS))
    watching, predicting = cost_us(runner, manifest, patches[:TIMED_PATCHES])
    document = {
        "format": 1,
        "kind": KIND,
        "command": "python benchmarks/drift_power.py MODEL --data DATA --out F"
        + (f" --split {arguments.split}" if arguments.split != "valid" else ""),
        "about": f"Streams of `{arguments.split}`, {len(patches):,} patches of other slides than training's, all in "
        f"one stream or in {GROUPS} groups sorted by what they are alike in (slides are not known); every patch looked "
        f"at. Drift is called where more than {drift.LARGEST_SHARE:.0%} of a stream's patches lie beyond the 1st or "
        f"99th percentile of a statistic in training; `largest_share` is that share where it is largest. "
        f"`Watch.add` at one patch in {drift.EVERY} takes {watching:.1f} us per patch on average, `predict` of "
        f"{runner.manifest.network} {arguments.model.name} on {runner.runtime} {predicting:.1f} us.",
        "environment": machine,
        "columns": list(rows[0]),
        "rows": rows,
    }
    files.write_json(arguments.out, document)
    sys.stdout.write(f"{arguments.out}\n")


if __name__ == "__main__":
    try:
        drift_power_command()
    except HistoedgeError as error:
        sys.exit(str(error))
