"""The Pareto front of a study (points that no other point beats in AUC and latency), and its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from histoedge import files
from histoedge.lab.graph import MERGES, Row


@dataclass(frozen=True, kw_only=True)
class Point:
    """A completed trial.

    Attributes:
        trial: number of the trial.
        valid_auc: AUC of the int8 file on valid.
        p50_ratio: median latency of the int8 file relative to the reference, measured in the same run.
        int8_p50_us: median latency of the int8 file in microseconds.
        mmac: million multiply-accumulates per patch.
        int8_kb: size of the int8 file in kB.
        train: training settings as JSON.
        network: architecture as JSON.
    """

    trial: int
    valid_auc: float
    p50_ratio: float
    int8_p50_us: float
    mmac: float
    int8_kb: float
    train: Mapping[str, Any]
    network: Mapping[str, Any]

    @property
    def shape(self) -> str:
        """The rows except the head: channels, ``k`` with the kernel if it is not 3, ``s`` with the stride if not 1.

        Other rows than ``conv`` have their kind instead of channels.
        """
        parts = []
        for row in self.network["rows"][:-1]:
            kernel = "" if row["kernel"] == 3 or row["kind"] in (*MERGES, "activation") else f"k{row['kernel']}"
            stride = "" if row["stride"] == 1 else f"s{row['stride']}"
            parts.append(f"{row['channels'] if row['kind'] == 'conv' else row['kind']}{kernel}{stride}")
        return " ".join(parts)

    def as_row(self) -> dict[str, Any]:
        """Return one row of the table of the front."""
        settings = ("learning_rate", "weight_decay", "batch", "stain_jitter")
        return {
            "trial": self.trial,
            "valid_auc": round(self.valid_auc, 4),
            "int8_p50_us": round(self.int8_p50_us, 1),
            "p50_ratio": round(self.p50_ratio, 3),
            "mmac": round(self.mmac, 2),
            "int8_kb": round(self.int8_kb, 1),
            **{name: self.train[name] for name in settings},
            "rows": self.shape,
        }


def write_front(
    out: Path, points: Sequence[Point], numbers: Sequence[int], *, inputs: Mapping[str, Any]
) -> tuple[list[Point], Point]:
    """Write ``best.toml``, ``front.json`` and ``front.png``.

    Args:
        out: the folder.
        points: all completed trials.
        numbers: numbers of the trials on the front.
        inputs: settings of the study, as JSON.

    Returns:
        The front by latency, and its point with the highest AUC.
    """
    front = sorted((point for point in points if point.trial in numbers), key=lambda point: point.p50_ratio)
    best = max(front, key=lambda point: (point.valid_auc, -point.p50_ratio))
    files.write_text(out / "best.toml", settings_toml(best))
    document = {"best": best.trial, "front": [asdict(point) for point in front], "holds": inputs}
    files.write_json(out / "front.json", document)
    _draw(out / "front.png", points, front, best)
    return front, best


def settings_toml(point: Point) -> str:
    """Return the text of a settings file with this point's ``[train]`` and ``[network]``."""
    lines = [
        f"# Trial {point.trial} of histoedge tune: int8 AUC on valid {point.valid_auc:.4f}, "
        f"int8 latency {point.int8_p50_us:.1f} us, {point.p50_ratio:.3f} x the reference.",
        "[train]",
        *(f"{name} = {_value(value)}" for name, value in point.train.items() if value is not None),
        "",
        "[network]",
        f"name = {_value(point.network['name'])}",
        f"symmetric = {_value(point.network['symmetric'])}",
        *(f"patch_px = {_value(value)}" for key, value in point.network.items() if key == "patch_px"),
        "rows = [",
    ]
    defaults = {field.name: field.default for field in fields(Row)}
    for row in point.network["rows"]:
        entries = ", ".join(f"{name} = {_value(value)}" for name, value in row.items() if value != defaults[name])
        lines.append(f"  {{{entries}}},")
    return "\n".join([*lines, "]", ""])


def _value(value: Any) -> str:
    return json.dumps(value)  # JSON and TOML have the same syntax for strings, numbers, booleans and lists of them


def _draw(path: Path, points: Sequence[Point], front: Sequence[Point], best: Point) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter([point.p50_ratio for point in points], [point.valid_auc for point in points], color="0.7", s=18)
    axes.plot([point.p50_ratio for point in front], [point.valid_auc for point in front], "o-", label="front")
    axes.plot(best.p50_ratio, best.valid_auc, "*", markersize=14, label=f"best.toml (trial {best.trial})")
    axes.set(xlabel="int8 latency / reference latency", ylabel="int8 AUC on valid", title=f"{len(points)} trials")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
