"""Write benchmarks/README.md from the committed results: ``python benchmarks/tables.py``.

Each ``results/<machine>/<name>.json`` is the ``bench.json`` of a run with the settings of ``<name>.toml``, or has a
``kind`` that says which script of this folder made it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from histoedge import bench, config, files, report
from histoedge.report.tables import interval, kilobytes, micros

HERE = Path(__file__).parent

TEACHERS = {"edge": "accurate", "nano": "accurate", "teacher": "accurate"}  # whose finished run teaches which

WITHOUT_AMX = "-without-amx"  # at the end of a machine's name: with without_amx.py before the command

HEADER = """# Benchmarks

Made from `results/` by `make tables`; nothing here is typed by hand. Each table is the `bench.json` of one run on
PatchCamelyon's patches with the settings beside it, or of the command above it: trained on `train`, chosen on `valid`,
reported once on `test`. DATA is a folder with PatchCamelyon's HDF5 files.
"""


def page() -> str:
    """The whole of ``benchmarks/README.md``."""
    parts = [HEADER, *networks_parts()]
    for results in sorted(HERE.glob("results/*/*.json")):
        kind = json.loads(results.read_text()).get("kind", "bench")
        parts.append(f"## {results.stem}, on {results.parent.name}\n")
        parts += KINDS[kind](results)
    return "\n".join(parts).rstrip() + "\n"


def networks_parts() -> list[str]:
    """All networks side by side: the smallest file that each run has, on the runtime that is quickest with it."""
    head = ["network", "MMAC", "file", "size kB", "runtime", "p50 us", "AUC on test", "from"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---|---:|---|---:|---|---|"]
    for results in sorted(HERE.glob("results/*/*.json")):
        if "kind" in json.loads(results.read_text()):
            continue
        rows = [row for row in bench.read(results).measurements if row.measured and row.format != "keras"]
        for recipe in ("int8", "slim50_int8") if any(row.recipe == "int8" for row in rows) else ("fp32",):
            same = [row for row in rows if row.recipe == recipe]
            if not same:
                continue
            row = min(same, key=lambda one: one.p50_ms or float("inf"))
            cells = [row.network or "", f"{(row.macs or 0) / 1e6:.1f}", row.model, kilobytes(row.size_bytes)]
            cells += [f"{row.runtime} {row.runtime_version}", micros(row.p50_ms)]
            cells += [interval(row.auc, row.auc_lo, row.auc_hi), f"`{_place(results)}`"]
            lines.append("| " + " | ".join(cells) + " |")
    return ["## Networks\n", "\n".join(lines) + "\n"]


def run_parts(results: Path) -> list[str]:
    """What is said of a ``bench.json``."""
    settings = HERE / f"{results.stem}.toml"
    measured = bench.read(results)
    command = run_command(results.stem) + _recipes(measured)
    if results.parent.name.endswith(WITHOUT_AMX):
        command = f"python benchmarks/without_amx.py {command}"
    return [
        f"`{command}`; its `RUN/bench.json` is `{_place(results)}`.\n",
        f"```toml\n{settings.read_text().strip()}\n```\n",
        report.markdown(measured),
    ]


def run_command(name: str) -> str:
    """What makes the run with the settings of ``<name>.toml``."""
    teacher = f" --teacher RUN_OF_{TEACHERS[name].upper()}" if name in TEACHERS else ""
    return f"histoedge run --data DATA --out RUN --config benchmarks/{name}.toml{teacher}"


def peers_parts(results: Path) -> list[str]:
    """What is said of a results file of ``peers.py``."""
    document = json.loads(results.read_text())
    rows, verdict = document["rows"], document["verdict"]
    splits = ("valid", "test")
    head = ["quantised by", "file", "runtime", "kernels", "size kB", "p50 us", "p50 / fastest peer"]
    for name in splits:
        head += [f"AUC {name}", f"dAUC {name}", "s.e.", "rms logit", "flips"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 4 + "---:|" * (len(head) - 4)]
    for row in rows:
        maker = f"{row['name']} ({row['made_by']})" if row["peer"] else f"histoedge, {row['name']}"
        cells = [maker, row["file"], f"{row['runtime']} {row['runtime_version']}", row["kernels"]]
        cells.append(f"{row['size_bytes'] / 1000:,.0f}")
        cells.append(interval(row["p50_us"], row["p50_us_lo"], row["p50_us_hi"], digits=1))
        cells.append(interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=3))
        for name in splits:
            cells += _accuracy(row[name])
        lines.append("| " + " | ".join(cells) + " |")
    counts = " and ".join(f"{rows[0][name]['n_patches']:,} patches of `{name}`" for name in splits)
    notes = [
        *verdict["words"],
        verdict["rule"],
        f"1 thread, batch 1, rounds interleaved, each turn in a fresh process; {counts}; 95 % intervals, of AUC after "
        "DeLong, paired for dAUC; dAUC with its standard error (s.e.), rms logit difference and decision flips at "
        "logit 0 against fp32 on the same runtime. Peers calibrate with the patches that int8ptq sees; every file "
        "takes raw uint8 pixels.",
    ]
    return [
        f"`{document['command']}`, RUN a finished run; F is `{_place(results)}`.\n",
        "\n".join(lines) + "\n",
        "\n".join(f"- {note}" for note in notes) + "\n",
    ]


def rows_parts(results: Path) -> list[str]:
    """What is said of a results file that is a list of rows: its command, and a table with its keys as columns."""
    document = json.loads(results.read_text())
    head = list(document["rows"][0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
    lines += ["| " + " | ".join(_cell(row[key]) for key in head) + " |" for row in document["rows"]]
    run = ", RUN a finished run" if " RUN " in document["command"] else ""
    told = f"`{document['command']}`{run}; F is `{_place(results)}`. {document['about']}\n"
    return [told, "\n".join(lines) + "\n"]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


KINDS = {
    "bench": run_parts,
    "peers": peers_parts,
    **dict.fromkeys(("quantise", "saturation", "ablations", "throughput", "coverage"), rows_parts),
}


def _accuracy(found: dict[str, Any]) -> list[str]:
    cells = [interval(found["auc"], found["auc_lo"], found["auc_hi"])]
    if "d_auc" not in found:  # fp32 is what the others are compared with
        return [*cells, "", "", "", ""]
    cells.append(interval(found["d_auc"], found["d_auc_lo"], found["d_auc_hi"], sign="+"))
    return [*cells, f"{found['d_auc_se']:.4f}", f"{found['rms_logit']:.3f}", str(found["flips"])]


def _place(results: Path) -> str:
    return f"results/{results.parent.name}/{results.name}"


def _recipes(measured: bench.Results) -> str:
    """The ``--recipe`` options of the command, nothing for the default five."""
    names = list(dict.fromkeys(row.recipe for row in measured.measurements))
    if set(names) == set(config.RECIPES):
        return " --recipe all"
    return "" if set(names) == set(config.DEFAULT_RECIPES) else "".join(f" --recipe {name}" for name in names)


if __name__ == "__main__":
    files.write_text(HERE / "README.md", page())
    sys.stdout.write(f"{HERE / 'README.md'}\n")
