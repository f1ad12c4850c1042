"""What a page of results is about, for its head: run, networks, data, and what measured it and when."""

from collections.abc import Sequence
from pathlib import Path

from histoedge.benchmark import Measurement, Results
from histoedge.benchmark.environment import folder_name
from histoedge.reporting import groups

NOT_RECORDED = "not recorded"
SHORT_HASH = 12  # digits: enough to tell data sets apart by eye
RESULTS_OF_A_RUN = "bench.json"
MODELS = "models"


def name_of(path: Path) -> str | None:
    """A name for results that tell none: the run in whose folder they lie, else the file's own name."""
    return folder_name(path.resolve().parent) if path.name == RESULTS_OF_A_RUN else path.stem


def run_name(results: Results, name: str | None = None) -> str | None:
    """The run or runs: as recorded, by the folders that tell models apart, else ``name``."""
    recorded = results.environment.get("run")
    if isinstance(recorded, str):
        return recorded
    folders = [groups.folder(row).split("/") for row in results.measurements if groups.folder(row)]
    own = [next((part for part in reversed(parts) if part != MODELS), "") for parts in folders]
    return ", ".join(dict.fromkeys(part for part in own if part)) or name


def title(results: Results, name: str | None = None) -> str:
    """Such as ``run kept: network edge, 10 files on 3 runtimes``."""
    run = run_name(results, name)
    networks = networks_of(results)
    rows = [row for row in results.measurements if row.format != "keras"] or results.measurements
    measured = [row for row in rows if row.measured]
    files, runtimes = (len({getattr(row, key) for row in measured}) for key in ("model", "runtime"))
    known = len(networks) > 1 and ", ".join(networks) == run
    parts = ["" if known else _named("network", networks)]
    parts.append(f"{_counted(files, 'file')} on {_counted(runtimes, 'runtime')}")
    said = ", ".join(part for part in parts if part)
    return f"run {run}: {said}" if run else said


def networks_of(results: Results) -> list[str]:
    """The names of the networks, in the order of the results."""
    return list(dict.fromkeys(row.network for row in results.measurements if row.network))


def head(results: Results, name: str | None = None) -> list[tuple[str, str]]:
    """Word and fact of what the page is about; ``not recorded`` where the results do not tell it."""
    about = results.environment
    facts = [
        ("Run", run_name(results, name)),
        ("Networks" if len(networks_of(results)) > 1 else "Network", ", ".join(networks_of(results))),
        ("Test data", _data(results)),
        ("Measured", about.get("date")),
        ("On", about.get("cpu")),
        ("histoedge", about.get("histoedge")),
        ("Commit", about.get("commit")),
    ]
    return [(word, str(fact) if fact else NOT_RECORDED) for word, fact in facts]


def patches_of(rows: Sequence[Measurement]) -> int | None:
    """How many test patches were answered."""
    return max((row.n_patches for row in rows if row.n_patches is not None), default=None)


def _data(results: Results) -> str:
    told = results.environment.get("data")
    count = patches_of(results.measurements)
    content = str(results.inputs.get("data") or "")
    parts = [
        f"{told} patches" if told else "",
        "" if count is None else f"{count:,} patches" if not told else f"{count:,} of them",
        f"content hash {content[:SHORT_HASH]}" if content else "",
    ]
    return ", ".join(part for part in parts if part)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _named(noun: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    if len(names) == 1:
        return f"{noun} {names[0]}"
    return f"{noun}s {', '.join(names[:-1])} and {names[-1]}"
