"""Title and head of a page of results: run, networks, data, machine, date and versions."""

from collections.abc import Sequence
from pathlib import Path

from histoedge.benchmark import Measurement, Results
from histoedge.benchmark.environment import folder_name
from histoedge.reporting import groups

NOT_RECORDED = "not recorded"
SHORT_HASH = 12  # digits; enough to distinguish data sets by eye
RESULTS_OF_A_RUN = "bench.json"
MODELS = "models"


def name_of(path: Path) -> str | None:
    """Return a name for results that record none: the folder of the run, otherwise the file name."""
    return folder_name(path.resolve().parent) if path.name == RESULTS_OF_A_RUN else path.stem


def run_name(results: Results, name: str | None = None) -> str | None:
    """Return the run or runs: as recorded, otherwise from the folders of the models, otherwise ``name``."""
    recorded = results.environment.get("run")
    if isinstance(recorded, str):
        return recorded
    folders = [groups.folder(row).split("/") for row in results.measurements if groups.folder(row)]
    own = [next((part for part in reversed(parts) if part != MODELS), "") for parts in folders]
    return ", ".join(dict.fromkeys(part for part in own if part)) or name


def title(results: Results, name: str | None = None) -> str:
    """Return a title such as ``run first: network edge, 10 files on 3 runtimes``."""
    run = run_name(results, name)
    networks = networks_of(results)
    rows = [row for row in results.measurements if row.format != "keras"] or results.measurements
    measured = [row for row in rows if row.measured]
    files, runtimes = (len({getattr(row, key) for row in measured}) for key in ("model", "runtime"))
    same_names = len(networks) > 1 and ", ".join(networks) == run
    parts = ["" if same_names else _named("network", networks)]
    parts.append(f"{_counted(files, 'file')} on {_counted(runtimes, 'runtime')}")
    content = ", ".join(part for part in parts if part)
    return f"run {run}: {content}" if run else content


def networks_of(results: Results) -> list[str]:
    """Return the names of the networks, in the order of the results."""
    return list(dict.fromkeys(row.network for row in results.measurements if row.network))


def head(results: Results, name: str | None = None) -> list[tuple[str, str]]:
    """Return label and value pairs; the value is ``not recorded`` if the results do not contain it."""
    environment = results.environment
    facts = [
        ("Run", run_name(results, name)),
        ("Networks" if len(networks_of(results)) > 1 else "Network", ", ".join(networks_of(results))),
        ("Test data", _data(results)),
        ("Measured", environment.get("date")),
        ("CPU", environment.get("cpu")),
        ("histoedge", environment.get("histoedge")),
        ("Commit", environment.get("commit")),
    ]
    return [(label, str(value) if value else NOT_RECORDED) for label, value in facts]


def patches_of(rows: Sequence[Measurement]) -> int | None:
    """Return the number of test patches."""
    return max((row.n_patches for row in rows if row.n_patches is not None), default=None)


def _data(results: Results) -> str:
    kind = results.environment.get("data")
    count = patches_of(results.measurements)
    content = str(results.inputs.get("data") or "")
    patches = " ".join(part for part in ("" if count is None else f"{count:,}", kind, "patches") if part)
    parts = [patches if kind or count is not None else "", f"content hash {content[:SHORT_HASH]}" if content else ""]
    return ", ".join(part for part in parts if part)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _named(noun: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    if len(names) == 1:
        return f"{noun} {names[0]}"
    return f"{noun}s {', '.join(names[:-1])} and {names[-1]}"
