"""Write benchmarks/README.md, and the table in README.md, from the committed results: ``python benchmarks/pages.py``.

Each ``results/<machine>/<name>.json`` is the ``bench.json`` of a run with the settings of ``<name>.toml``
(``<name>-seedN.json`` with another seed), that of the suite on all released models (``suite.json``, on synthetic
patches ``suite-synthetic.json``), or has a ``kind`` that says which script of this folder made it.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import suite
import suite_tables

from histoedge import benchmark, config, files, reporting
from histoedge.reporting.tables import interval, kilobytes, micros

HERE = Path(__file__).parent

TEACHERS = {
    "teacher": "first",
    "accurate": "teacher",
    "edge": "accurate",
    "nano": "accurate",
}  # whose run teaches which

WITHOUT_AMX = "-without-amx"  # at the end of a machine's name: with without_amx.py before the command

BEGIN, END = "<!-- released: make tables -->", "<!-- end -->"  # in the project's README

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
        if not _is_run(results):
            continue
        rows = [row for row in benchmark.read_results(results).measurements if row.measured and row.format != "keras"]
        for recipe in ("int8", "slim50_int8") if any(row.recipe == "int8" for row in rows) else ("fp32",):
            same = [row for row in rows if row.recipe == recipe]
            if not same:
                continue
            row = min(same, key=lambda one: one.p50_ms or float("inf"))
            cells = [row.network or "", f"{(row.macs or 0) / 1e6:.1f}", row.model, kilobytes(row.size_bytes)]
            cells += [f"{row.runtime} {row.runtime_version}", micros(row.p50_ms)]
            cells += [interval(row.auc, row.auc_lo, row.auc_hi), f"`{_place(results)}`"]
            lines.append("| " + " | ".join(cells) + " |")
    return ["## Networks\n", "\n".join(lines) + "\n", *seeds_parts()]


def released() -> str:
    """A row per released network, from the results that its model card names."""
    head = ["network", "MMAC", "int8 kB", "AUC on test, int8", "fp32", "LiteRT p50 us", "ONNX Runtime p50 us", "from"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|---|---|---|---|---|"]
    for folder in sorted(HERE.parent.glob("exported/*/models")):
        name = folder.parent.name
        (results,) = (file for file in HERE.glob(f"results/*/{name}.json") if not _without_amx(file))
        rows = {(row.model, row.runtime): row for row in benchmark.read_results(results).measurements}
        int8, fp32 = (rows[f"{recipe}.onnx", "onnxruntime"] for recipe in ("int8", "fp32"))
        cells = [f"`{name}`", f"{(int8.macs or 0) / 1e6:.1f}", kilobytes(int8.size_bytes)]
        cells += [interval(one.auc, one.auc_lo, one.auc_hi) for one in (int8, fp32)]
        for key in (("int8.tflite", "litert"), ("int8.onnx", "onnxruntime")):
            cells.append(f"{micros(rows[key].p50_ms)}, {rows[key].p50_ratio:.2f} of fp32")
        lines.append("| " + " | ".join([*cells, f"`benchmarks/{_place(results)}`"]) + " |")
    return "\n".join(lines) + "\n"


def with_released(readme: str) -> str:
    """The project's README with the table of released networks as the results have it."""
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}\n{released()}{END}{rest.split(END)[1]}"


def seeds_parts() -> list[str]:
    """What another seed changes, for every network that was trained with several."""
    areas: dict[str, list[float]] = {}
    for results in sorted(HERE.glob("results/*/*.json")):
        if not _is_run(results) or _without_amx(results):
            continue
        for row in benchmark.read_results(results).measurements:
            if row.model == "int8.onnx" and row.runtime == "onnxruntime" and row.auc is not None:
                areas.setdefault(_settings(results.stem), []).append(row.auc)
    lines = [
        f"- `{name}`, {len(found)} seeds: mean AUC of int8.onnx on test {statistics.mean(found):.4f}, from "
        f"{min(found):.4f} to {max(found):.4f}."
        for name, found in areas.items()
        if len(found) > 1
    ]
    return ["\n".join(lines) + "\n"] if lines else []


def run_parts(results: Path) -> list[str]:
    """What is said of a ``bench.json``."""
    if _is_suite(results):
        return suite_parts(results)
    settings = HERE / f"{_settings(results.stem)}.toml"
    measured = benchmark.read_results(results)
    command = run_command(results.stem)
    if command.startswith("histoedge run"):
        command += _recipes(measured)
    if _without_amx(results):
        command = f"python benchmarks/without_amx.py {command}"
    return [
        f"`{command}`; its `RUN/bench.json` is `{_place(results)}`.\n",
        *([f"```toml\n{settings.read_text().strip()}\n```\n"] if settings.is_file() else []),
        reporting.markdown(measured),
    ]


def suite_parts(results: Path) -> list[str]:
    """What is said of the suite's ``bench.json``."""
    command = "python benchmarks/suite.py --data DATA"
    if _without_amx(results):
        command = f"python benchmarks/without_amx.py {command}"
    told = f"`make bench`, or `{command}`; its results are `{_place(results)}`."
    if results.stem != suite.NAME:
        told += " **On synthetic patches**: times hold, but no AUC here says anything about real tissue."
    return [
        f"{told}\n",
        f"```toml\n{(HERE / 'suite.toml').read_text().strip()}\n```\n",
        *suite_tables.parts(benchmark.read_results(results).measurements),
    ]


def _is_suite(results: Path) -> bool:
    return results.stem in (suite.NAME, suite.NAME + suite.SYNTHETIC)


def _is_run(results: Path) -> bool:
    """Whether it is the ``bench.json`` of one run."""
    return "kind" not in json.loads(results.read_text()) and not _is_suite(results)


def run_command(name: str) -> str:
    """What makes the run whose results are ``<name>.json``."""
    if name == "baseline-author":
        return (
            "python benchmarks/baseline.py --data DATA --out RUN && histoedge export RUN --recipe fp32 && "
            "histoedge bench RUN --data DATA --out RUN/bench.json"
        )
    settings, _, seed = name.partition("-seed")
    teacher = f" --teacher RUN_OF_{TEACHERS[settings].upper()}" if settings in TEACHERS else ""
    return f"histoedge run --data DATA --out RUN --config benchmarks/{settings}.toml{teacher}" + (
        f" --seed {seed}" if seed else ""
    )


def _settings(name: str) -> str:
    """The name of the settings file that results of this name were made with."""
    return name.partition("-seed")[0]


def peers_parts(results: Path) -> list[str]:
    """What is said of a results file of ``peers``."""
    document = json.loads(results.read_text())
    rows, verdict = document["rows"], document["verdict"]
    splits = ("valid", "test")
    head = ["quantised by", "file", "runtime", "kernels", "size kB", "p50 us", "p50 / fastest peer"]
    for name in splits:
        head += [f"AUC {name}", f"dAUC {name}", "s.e.", "rms logit", "flips"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 4 + "---:|" * (len(head) - 4)]
    for row in rows:
        settings = f"; {row['settings']}" if row.get("settings") else ""
        maker = f"{row['name']} ({row['made_by']}{settings})" if row["peer"] else f"histoedge, {row['name']}"
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
    notes += [_candidates(row) for row in rows if row.get("candidates")]
    return [
        f"`{document['command']}`, RUN a finished run; F is `{_place(results)}`.\n",
        "\n".join(lines) + "\n",
        *_others(document.get("networks", [])),
        "\n".join(f"- {note}" for note in notes) + "\n",
    ]


def _others(rows: list[dict[str, Any]]) -> list[str]:
    """Other networks' files in the run of ``peers``."""
    if not rows:
        return []
    head = ["other network", "file", "runtime", "params", "MMAC", "size kB", "p50 us", "p50 / our int8", "AUC on test"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * (len(head) - 3)]
    for row in rows:
        cells = [row["name"] + ("" if row["trained"] else ", untrained"), row["file"]]
        cells += [f"{row['runtime']} {row['runtime_version']}", f"{row['params']:,}", f"{row['macs'] / 1e6:,.1f}"]
        cells.append(kilobytes(row["size_bytes"]))
        cells.append(interval(row["p50_us"], row["p50_us_lo"], row["p50_us_hi"], digits=1))
        cells.append(interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=2))
        found = row["test"] or {"auc": None, "auc_lo": None, "auc_hi": None}
        cells.append(interval(found["auc"], found["auc_lo"], found["auc_hi"]))
        lines.append("| " + " | ".join(cells) + " |")
    told = f"In the same rounds, made by {rows[0]['made_by']}, int8 after training; untrained: latency and size alone."
    return [f"{told}\n", "\n".join(lines) + "\n"]


def _candidates(row: dict[str, Any]) -> str:
    """The settings among which a peer chose."""
    told = "; ".join(f"{one['settings']}: {one['auc_valid']:.4f}" for one in row["candidates"])
    return f"{row['name']} is the best of its settings by AUC on valid: {told}."


def rows_parts(results: Path) -> list[str]:
    """What is said of a results file that is a list of rows: its command, and a table with its keys as columns, in
    the order of ``columns`` where the file has it."""
    document = json.loads(results.read_text())
    head = document.get("columns") or list(document["rows"][0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
    lines += ["| " + " | ".join(_cell(row[key]) for key in head) + " |" for row in document["rows"]]
    run = ", RUN a finished run" if " RUN " in document["command"] else ""
    told = f"`{document['command']}`{run}; F is `{_place(results)}`. {document['about']}\n"
    return [told, "\n".join(lines) + "\n"]


def slides_parts(results: Path) -> list[str]:
    """What is said of a results file of ``slides.py``: several tables, each with what it shows."""
    document = json.loads(results.read_text())
    parts = [f"`{document['command']}`; F is `{_place(results)}`. {document['about']}\n"]
    for table in document["tables"]:
        head = table["columns"]
        lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
        lines += ["| " + " | ".join(_cell(row[key]) for key in head) + " |" for row in table["rows"]]
        parts += [f"{table['about']}\n", "\n".join(lines) + "\n"]
    return parts


def ablations_parts(results: Path) -> list[str]:
    """What is said of a results file of ``ablations.py``: a row per choice, over its seeds."""
    document = json.loads(results.read_text())
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        found.setdefault((row["question"], row["choice"]), []).append(row)
    head = ["question", "choice", "patches", "epochs", "seeds", "AUC on valid", "least", "most", "over the base"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    base = {row["seed"]: row["best_valid_auc"] for row in document["rows"] if row["question"] == "base"}
    for (question, choice), rows in found.items():
        areas = [row["best_valid_auc"] for row in rows]
        over = statistics.mean(row["best_valid_auc"] - base[row["seed"]] for row in rows)
        cells = [question, choice, f"{rows[0]['patches']:,}", str(rows[0]["epochs"]), str(len(rows))]
        cells += [f"{area:.4f}" for area in (statistics.mean(areas), min(areas), max(areas))]
        lines.append("| " + " | ".join([*cells, f"{over:+.4f}"]) + " |")
    settings = f"```toml\n{(HERE / 'ablations.toml').read_text().strip()}\n```\n"
    return [
        f"`{document['command']}`; F is `{_place(results)}`. {document['about']}\n",
        settings,
        "\n".join(lines) + "\n",
    ]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


KINDS = {
    "bench": run_parts,
    "peers": peers_parts,
    "ablations": ablations_parts,
    "slides": slides_parts,
    **dict.fromkeys(("quantise", "saturation", "throughput", "aa", "coverage", "trainings", "overhead"), rows_parts),
    **dict.fromkeys(("drift", "fuzz", "threads", "runtimes", "doctor", "packing", "full size"), rows_parts),
}


def _accuracy(found: dict[str, Any]) -> list[str]:
    cells = [interval(found["auc"], found["auc_lo"], found["auc_hi"])]
    if "d_auc" not in found:  # fp32 is what the others are compared with
        return [*cells, "", "", "", ""]
    cells.append(interval(found["d_auc"], found["d_auc_lo"], found["d_auc_hi"], sign="+"))
    return [*cells, f"{found['d_auc_se']:.4f}", f"{found['rms_logit']:.3f}", str(found["flips"])]


def _without_amx(results: Path) -> bool:
    return results.parent.name.endswith(WITHOUT_AMX)


def _place(results: Path) -> str:
    return f"results/{results.parent.name}/{results.name}"


def _recipes(measured: benchmark.Results) -> str:
    """The ``--recipe`` options of the command, nothing for the default five."""
    names = list(dict.fromkeys(row.recipe for row in measured.measurements))
    if set(names) == set(config.RECIPES):
        return " --recipe all"
    return "" if set(names) == set(config.DEFAULT_RECIPES) else "".join(f" --recipe {name}" for name in names)


if __name__ == "__main__":
    files.write_text(HERE / "README.md", page())
    readme = HERE.parent / "README.md"
    files.write_text(readme, with_released(readme.read_text()))
    sys.stdout.write(f"{HERE / 'README.md'}\n{readme}\n")
