"""The sections of a machine's page, one for each results file."""

import statistics
from collections.abc import Callable
from pathlib import Path

import suite
import suite_tables
from committed import HERE, ResultsFile
from markdown_table import markdown_table, records_table
from peer_section import peers_parts
from record import Row

from histoedge import reporting

COLUMNS: dict[str, tuple[str, ...]] = {
    "aa": (
        *("compared", "repetitions", "slower", "faster", "ratio_median", "ratio_min", "ratio_max", "width_median"),
        *("asked", "holds"),
    ),
    "coverage": (
        *("interval", "of", "n_patches", "true", "draws", "coverage", "coverage_lo", "coverage_hi"),
        *("too_low", "too_high", "mean_width"),
    ),
    "full size": ("what", "memory_limit_gb", "peak_rss_gb", "first_step_s", "seconds", "exit_code"),
    "quantise": (*("steps", "learning_rate", "largest_code", "d_auc", "d_auc_lo", "d_auc_hi", "logit_rms", "flips"),),
    "saturation": (*("file", "may_saturate", "n_patches", "patches_that_differ", "largest_logit_difference", "flips"),),
    "throughput": ("training", "patches_per_s", "step_ms"),
    "trainings": (
        *("training", "network", "taught by", "learning rate", "stain jitter", "seed", "epochs", "best epoch"),
        "AUC on valid",
    ),
}
"""Order of the columns for documents of earlier releases, which do not state ``columns``."""


def section(file: ResultsFile) -> list[str]:
    """Return the section of a results file: heading, command, description, tables."""
    title, parts = SECTIONS[file.kind]
    return [f"## {file.name}\n", f"{title}.\n", f"{_origin(file)}\n", *parts(file)]


def _origin(file: ResultsFile) -> str:
    result = {"run": "its `RUN/bench.json`", "suite": "its results"}.get(file.kind, "F")
    command = f"`{file.command}`" if file.kind != "suite" else f"`make bench`, or `{file.command}`"
    return f"Command: {command}; {result} is [`{file.path.name}`]({file.path.name})."


def _about(file: ResultsFile) -> list[str]:
    return [f"{file.document['about']}\n"] if file.document.get("about") else []


def _settings(path: Path) -> list[str]:
    return [f"```toml\n{path.read_text().strip()}\n```\n"] if path.is_file() else []


def run_parts(file: ResultsFile) -> list[str]:
    """Return the settings and the tables of the ``bench.json`` of a run."""
    return [*_settings(HERE / f"{file.settings}.toml"), reporting.markdown(file.bench)]


def suite_parts(file: ResultsFile) -> list[str]:
    """Return the plan and the tables of the suite's ``bench.json``."""
    warning = "**On synthetic patches**: the times are valid, but an AUC here is no evidence about real tissue.\n"
    return [
        *([warning] if file.name != suite.NAME else []),
        *_settings(HERE / "suite.toml"),
        *suite_tables.parts(file.bench.measurements),
    ]


def rows_parts(file: ResultsFile) -> list[str]:
    """Return the description and the table of a document with one list of rows."""
    rows = file.document["rows"]
    columns = file.document.get("columns") or COLUMNS.get(file.kind) or list(rows[0])
    return [*_about(file), records_table(columns, rows)]


def tables_parts(file: ResultsFile) -> list[str]:
    """Return the tables of a document with several, each after its description."""
    parts = _about(file)
    for table in file.document["tables"]:
        parts += [f"{table['about']}\n", records_table(table["columns"], table["rows"])]
    return parts


def ablations_parts(file: ResultsFile) -> list[str]:
    """Return the settings, and a table with a row for each choice over its seeds."""
    head = ["question", "choice", "patches", "epochs", "seeds", "AUC on valid", "least", "most", "against the base"]
    lines = []
    for (question, choice), rows in choices(file).items():
        areas = [row["best_valid_auc"] for row in rows]
        cells = [question, choice, f"{rows[0]['patches']:,}", str(rows[0]["epochs"]), str(len(rows))]
        cells += [f"{area:.4f}" for area in (statistics.mean(areas), min(areas), max(areas))]
        lines.append([*cells, f"{against_base(file, rows):+.4f}"])
    table = markdown_table(head, lines, text=("question", "choice"))
    return [*_about(file), *_settings(HERE / "ablations.toml"), table]


def choices(file: ResultsFile) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of the ablations by question and choice: one for each seed."""
    by_choice: dict[tuple[str, str], list[Row]] = {}
    for row in file.document["rows"]:
        by_choice.setdefault((row["question"], row["choice"]), []).append(row)
    return by_choice


def against_base(file: ResultsFile, rows: list[Row]) -> float:
    """Return the mean difference in AUC on valid to the base of the same seed."""
    base = {row["seed"]: row["best_valid_auc"] for row in file.document["rows"] if row["question"] == "base"}
    return float(statistics.mean(row["best_valid_auc"] - base[row["seed"]] for row in rows))


SECTIONS: dict[str, tuple[str, Callable[[ResultsFile], list[str]]]] = {
    "run": ("Cost and quality of the files of a run", run_parts),
    "suite": ("The benchmark suite on the released models", suite_parts),
    "peers": ("Int8 files of a run against other quantisers and other networks", peers_parts),
    "ablations": ("Effect of each training choice", ablations_parts),
    "slides": ("Speed on a whole slide", tables_parts),
    "aa": ("How often the ratio test is right", rows_parts),
    "coverage": ("Coverage of the 95 % intervals", rows_parts),
    "doctor": ("Diagnoses of known mistakes", rows_parts),
    "drift": ("Sensitivity of the drift test", rows_parts),
    "full size": ("A run at PatchCamelyon's full size", rows_parts),
    "fuzz": ("Damaged and forged files", rows_parts),
    "imports": ("Keras models of twelve shapes, imported", rows_parts),
    "overhead": ("Overhead of the runner over the bare interpreter", rows_parts),
    "packing": ("Packing a Kaggle folder", rows_parts),
    "quantise": ("Settings of quantisation-aware training", rows_parts),
    "runtimes": ("Fresh installs, and the oldest and newest runtimes", rows_parts),
    "saturation": ("Int8 answers on a CPU without VNNI", rows_parts),
    "threads": ("Many threads that share a model", rows_parts),
    "throughput": ("Training throughput", rows_parts),
    "trainings": ("Trainings of the released networks and their teachers", rows_parts),
}
"""Title and content of a section, by the kind of the results file."""
