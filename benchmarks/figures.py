"""Headline figures of each kind of results file, for ``benchmarks/README.md``."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator

from committed import ResultsFile
from record import Row
from sections import against_base, choices

from histoedge.benchmark import Measurement
from histoedge.metrics import value_of
from histoedge.reporting.tables import interval, micros_with_bounds, with_bounds

Figure = tuple[str, str]
"""What was measured, and the value with its interval."""

TRAININGS = {"held": "patches in memory"}
"""Names of ways of training that differ from those in the results document."""


def augmentation(file: ResultsFile) -> Iterator[Figure]:
    """Yield the AUC on valid of the base, and of each choice of augmentation and preprocessing."""
    yield from _ablations(file, ("base", "augmentation", "preprocessing"))


def hyperparameters(file: ResultsFile) -> Iterator[Figure]:
    """Yield the AUC on valid of each training setting and number of training patches."""
    yield from _ablations(file, ("hyperparameters", "training patches"))


def _ablations(file: ResultsFile, questions: Iterable[str]) -> Iterator[Figure]:
    for (question, choice), rows in choices(file).items():
        if question in questions:
            areas = [row["best_valid_auc"] for row in rows]
            spread = (
                f"{len(rows)} seed" if len(rows) == 1 else f"{len(rows)} seeds, {min(areas):.4f} to {max(areas):.4f}"
            )
            change = "" if question == "base" else f", {against_base(file, rows):+.4f} against the base"
            yield f"{question}: {choice}", f"{statistics.mean(areas):.4f} ({spread}){change}"


def trainings(file: ResultsFile) -> Iterator[Figure]:
    """Yield the AUC on valid of each full training with its settings."""
    for row in file.document["rows"]:
        settings = (
            f"learning rate {row['learning rate']:g}, stain jitter {row['stain jitter']:g}, {row['epochs']} epochs, "
            f"teacher: {row['taught by'].replace('nobody', 'none')}"
        )
        yield f"`{row['training']}`: {settings}", f"{row['AUC on valid']:.4f}"


def quantisation_settings(file: ResultsFile) -> Iterator[Figure]:
    """Yield the loss of int8 without training, and the range over the settings of quantisation-aware training."""
    rows = file.document["rows"]
    trained = [row for row in rows if row["steps"]]
    for row in rows:
        if not row["steps"]:
            value = f"{_d_auc(row)}, {row['flips']} flips, rms logit difference {row['logit_rms']:.3f}"
            yield "dAUC, calibration without training", value
    values = ", ".join(
        f"{name} {min(row[key] for row in trained):{form}} to {max(row[key] for row in trained):{form}}"
        for name, key, form in (("dAUC", "d_auc", "+.4f"), ("flips", "flips", "d"), ("rms", "logit_rms", ".3f"))
    )
    yield f"range over {len(trained)} settings of quantisation-aware training", values


def int8_speed(file: ResultsFile) -> Iterator[Figure]:
    """Yield p50 of each network's fastest int8 file, and its ratio to fp32 on the same runtime."""
    for network, rows in _int8_rows(file).items():
        row = min(rows, key=lambda each: value_of(each.p50_ms) or float("inf"))
        ratio = with_bounds(row.p50_ratio, digits=3)
        value = f"{micros_with_bounds(row.p50_ms)} us, {ratio} of fp32"
        yield f"p50 of `{network}` int8 on its fastest runtime", f"{value} ({row.runtime} {row.runtime_version})"


def speed_without_amx(file: ResultsFile) -> Iterator[Figure]:
    """Yield ``int8_speed`` of runs that were measured without AMX."""
    if file.without_amx:
        yield from int8_speed(file)


def int8_quality(file: ResultsFile) -> Iterator[Figure]:
    """Yield the difference in AUC between int8 and fp32, and between runtimes."""
    for network, rows in _int8_rows(file).items():
        row = max(rows, key=lambda each: each.flips or 0)
        d_auc = with_bounds(row.d_auc, sign="+")
        value = f"{d_auc}, {row.flips} of {row.n_patches:,} decisions differ ({row.runtime})"
        yield f"dAUC on test, `{network}` int8 against fp32, on the runtime with the most different decisions", value
    areas: dict[str, list[float]] = defaultdict(list)
    for row in _single_patches(file):
        if row.recipe == "fp32" and row.auc is not None:
            areas[row.network or ""].append(row.auc.value)
    for network, values in areas.items():
        name = f"AUC on test, `{network}` fp32: largest minus smallest over files and runtimes"
        yield name, f"{max(values) - min(values):.6f} ({len(values)} pairs of file and runtime)"


def _single_patches(file: ResultsFile) -> list[Measurement]:
    """Return the measured rows of single patches on one thread."""
    rows = [row for row in file.bench.measurements if row.measured and row.threads == 1 and row.batch == 1]
    return [row for row in rows if row.field_px == 96]


def _int8_rows(file: ResultsFile) -> dict[str, list[Measurement]]:
    by_network: dict[str, list[Measurement]] = defaultdict(list)
    for row in _single_patches(file):
        if row.recipe == "int8":
            by_network[row.network or ""].append(row)
    return by_network


def saturation(file: ResultsFile) -> Iterator[Figure]:
    """Yield how many patches get another logit on a CPU without VNNI."""
    for row in file.document["rows"]:
        value = f"{row['patches_that_differ']} of {row['n_patches']}, {row['flips']} decisions differ"
        yield f"patches with another logit on an emulated Haswell, {row['file']}", value


def runtime_releases(file: ResultsFile) -> Iterator[Figure]:
    """Yield the largest deviation from the golden patches over files and releases."""
    shares = [row for row in file.document["rows"] if row["unit"] == "of its tolerance"]
    worst = max(shares, key=lambda row: row["found"])
    value = f"{worst['found']:.3g} of the tolerance ({worst['environment'].split(', ')[1]}, {len(shares)} checks)"
    yield "largest difference from the golden patches, files on the oldest and newest runtimes", value


def imports(file: ResultsFile) -> Iterator[Figure]:
    """Yield the largest differences between Keras, the imported network and its int8 files over all models."""
    rows = file.document["rows"]
    yield (
        "models imported and verified in all their files",
        (f"{sum(len(set(row['verified'].split(' of '))) == 1 for row in rows)} of {len(rows)}"),
    )
    yield "largest difference of a logit from Keras", f"{max(row['difference'] for row in rows):.1e}"
    worst = min(rows, key=lambda row: row["int8_d_auc"])
    yield "lowest AUC of int8 minus that of fp32, without training", f"{worst['int8_d_auc']:+.4f} ({worst['model']})"
    yield (
        "largest difference between the int8 files of both formats",
        (f"{max(row['twin_quanta'] for row in rows):.0f} output quanta"),
    )


def installs(file: ResultsFile) -> Iterator[Figure]:
    """Yield the checks of fresh installs: how many hold, and the largest of each time and size."""
    rows = file.document["rows"]
    holding = sum(row["holds"] == "yes" for row in rows)
    yield "checks in fresh environments that pass", f"{holding} of {len(rows)}"
    for unit in ("MB", "CPU s", "s"):
        measured = [row for row in rows if row["unit"] == unit]
        row = max(measured, key=lambda each: each["found"])
        name = row["check"].replace("over import numpy", "beyond import numpy")
        yield f"largest of {len(measured)} installs: {name}", f"{row['found']:.3g} {unit} (limit {row['asked']})"


def coverage(file: ResultsFile) -> Iterator[Figure]:
    """Yield the range of the coverage of 95 % intervals, by interval, on independent patches and on slides."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in file.document["rows"]:
        slides = "slides" in row["of"]
        groups[f"{row['interval'].partition(',')[0]}, {'whole slides' if slides else 'independent patches'}"].append(
            row
        )
    for name, rows in groups.items():
        low, high = (choose(rows, key=lambda row: row["coverage"]) for choose in (min, max))
        shown = [interval(row["coverage"], row["coverage_lo"], row["coverage_hi"], digits=3) for row in (low, high)]
        value = shown[0] if len(rows) == 1 else f"{' to '.join(shown)} ({len(rows)} populations)"
        yield f"coverage of a 95 % interval: {name}", value


def ratio_test(file: ResultsFile) -> Iterator[Figure]:
    """Yield how often the ratio test reports a difference, for the same file and for a slowed one."""
    processes = "one process per file" if "--processes kept" in file.command else "a fresh process per turn"
    for row in file.document["rows"]:
        value = f"{row['slower']} slower, {row['faster']} faster of {row['repetitions']}"
        yield f"ratio test at the 1 % level, {row['compared']}, {processes}", value


def full_size(file: ResultsFile) -> Iterator[Figure]:
    """Yield time and peak memory of each command at full size."""
    for row in file.document["rows"]:
        limit = f", memory limit {row['memory_limit_gb']} GB" if row["memory_limit_gb"] else ""
        first = f"first step after {row['first_step_s']:g} s"
        value = f"{row['seconds']} s ({first}), peak {row['peak_rss_gb']} GB{limit}, exit code {row['exit_code']}"
        yield row["what"].partition(";")[0], value


def packing(file: ResultsFile) -> Iterator[Figure]:
    """Yield the ratio of packing to decoding, and the gain in loading."""
    document = file.document
    ratio = interval(document["ratio"], document["ratio_lo"], document["ratio_hi"], digits=2)
    yield "time to pack a Kaggle folder / time to decode its images", ratio
    for row in document["rows"]:
        if row["what"].startswith("load"):
            yield f"Kaggle folder of {row['images']:,} images: {row['what']}", f"{row['seconds']:.1f} s"


def throughput(file: ResultsFile) -> Iterator[Figure]:
    """Yield patches per second of each way of training, and the ratio to a plain fit."""
    document = file.document
    for row in document["rows"]:
        name = TRAININGS.get(row["training"], row["training"])
        yield f"`edge`, {name}", f"{row['patches_per_s']:,.0f} patches/s"
    ratio = interval(document["ratio"], document["ratio_lo"], document["ratio_hi"], digits=2)
    yield "`histoedge train` / plain Keras `fit`, patches per second", ratio


def other_quantisers(file: ResultsFile) -> Iterator[Figure]:
    """Yield our int8 against the other quantisers: speed by runtime, and AUC."""
    for row in file.document["rows"]:
        if row["name"] == "int8":
            ratio = interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=3)
            yield f"p50 of int8 / p50 of {row['fastest_peer']}, on {row['runtime']}", ratio
    verdict = file.document["verdict"]
    best = verdict["best_peer"]
    name = f"dAUC on test, int8 minus {best['name']} on {best['runtime']}, the best peer on valid"
    yield name, _d_auc(verdict["int8_less_best_peer"])
    yield (
        "dAUC on test, int8 minus int8ptq (calibration without training)",
        _d_auc(verdict["int8_less_int8ptq"]["test"]),
    )


def other_networks(file: ResultsFile) -> Iterator[Figure]:
    """Yield p50 of the other networks' int8 files, each on its fastest runtime, and AUC where trained."""
    fastest: dict[str, Row] = {}
    for row in file.document.get("networks", []):
        other = fastest.get(row["name"])
        if row["file"].startswith("int8") and (other is None or row["p50_us"] < other["p50_us"]):
            fastest[row["name"]] = row
    for name, row in fastest.items():
        ratio = interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=2)
        p50 = interval(row["p50_us"], row["p50_us_lo"], row["p50_us_hi"], digits=0)
        area = row["test"]
        quality = f"; AUC on test {interval(area['auc'], area['auc_lo'], area['auc_hi'])}" if area else "; untrained"
        yield (
            f"p50 of {name} int8 on its fastest runtime",
            f"{p50} us ({row['runtime']}), {ratio} times that of our int8{quality}",
        )


def _d_auc(row: Row) -> str:
    return interval(row["d_auc"], row["d_auc_lo"], row["d_auc_hi"], sign="+")


LIGHT = ("brightness", "light", "white balance", "red and blue")


def drift(file: ResultsFile) -> Iterator[Figure]:
    """Yield false reports on unchanged patches, reports after faults of light, and the faults without any report."""
    rows = file.document["rows"]
    unchanged = [row for row in rows if row["patches"].startswith("as they are")]
    reported, streams = (sum(row[key] for row in unchanged) for key in ("called_drift", "streams"))
    yield "unchanged streams (false reports)", f"{reported} of {streams}"
    unreported = []
    for row in rows:
        fault, _, groups = row["patches"].partition(", alike in ")
        if groups and row not in unchanged:
            name = fault.replace("_", " ")
            if fault.startswith(LIGHT):
                yield name, f"{row['called_drift']} of {row['streams']} groups"
            if not row["called_drift"]:
                unreported.append(name)
    yield "faults that are not reported for any group", ", ".join(unreported) or "none"
