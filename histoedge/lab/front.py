"""The Pareto front of a study: the points that no other beats in both AUC and latency, and the files they leave."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from histoedge import files
from histoedge.lab.architecture import Row


@dataclass(frozen=True, kw_only=True)
class Point:
    """A trial that came to its end.

    ``valid_auc`` is the int8 file's; ``p50_ratio`` its median latency over the reference's in the same run,
    ``int8_p50_us`` the same in microseconds. ``train`` and ``network`` are JSON documents of its settings.
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
        """The rows but the head: channels, ``k`` and the kernel where it is not 3, ``s`` and the stride if not 1."""
        words = []
        for row in self.network["rows"][:-1]:
            kernel = "" if row["kernel"] == 3 else f"k{row['kernel']}"
            words.append(f"{row['channels']}{kernel}" + ("" if row["stride"] == 1 else f"s{row['stride']}"))
        return " ".join(words)

    def as_row(self) -> dict[str, Any]:
        """One line for a person."""
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
    out: Path, points: Sequence[Point], numbers: Sequence[int], *, holds: Mapping[str, Any]
) -> tuple[list[Point], Point]:
    """Write ``best.toml``, ``front.json`` and ``front.png``; the front by latency, and the best of it.

    Args:
        out: the folder.
        points: all trials that came to their end.
        numbers: which of them are the front.
        holds: what the study holds for, as JSON.
    """
    front = sorted((point for point in points if point.trial in numbers), key=lambda point: point.p50_ratio)
    best = max(front, key=lambda point: (point.valid_auc, -point.p50_ratio))
    files.write_text(out / "best.toml", toml(best))
    document = {"best": best.trial, "front": [asdict(point) for point in front], "holds": holds}
    files.write_json(out / "front.json", document)
    _draw(out / "front.png", points, front, best)
    return front, best


def toml(point: Point) -> str:
    """The settings file that trains this point: ``[train]`` and ``[network]``."""
    lines = [
        f"# Trial {point.trial} of a search: valid AUC {point.valid_auc:.4f} as int8, "
        f"{point.int8_p50_us:.1f} us, {point.p50_ratio:.3f} x the reference.",
        "[train]",
        *(f"{name} = {_value(value)}" for name, value in point.train.items() if value is not None),
        "",
        "[network]",
        f"name = {_value(point.network['name'])}",
        f"symmetric = {_value(point.network['symmetric'])}",
        "rows = [",
    ]
    plain = {field.name: field.default for field in fields(Row)}
    for row in point.network["rows"]:
        said = ", ".join(f"{name} = {_value(value)}" for name, value in row.items() if value != plain[name])
        lines.append(f"  {{{said}}},")
    return "\n".join([*lines, "]", ""])


def _value(value: Any) -> str:
    return json.dumps(value)  # strings, numbers, booleans and lists of them are written alike in JSON and TOML


def _draw(path: Path, points: Sequence[Point], front: Sequence[Point], best: Point) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter([point.p50_ratio for point in points], [point.valid_auc for point in points], color="0.7", s=18)
    axes.plot([point.p50_ratio for point in front], [point.valid_auc for point in front], "o-", label="front")
    axes.plot(best.p50_ratio, best.valid_auc, "*", markersize=14, label=f"best.toml (trial {best.trial})")
    axes.set(xlabel="int8 latency, times the reference's", ylabel="AUC on valid, int8", title=f"{len(points)} trials")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
