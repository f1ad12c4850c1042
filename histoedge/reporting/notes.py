"""Notes below the tables; each note once for all cells that it is about."""

from collections.abc import Iterable, Sequence

from histoedge.benchmark import Measurement, Results
from histoedge.reporting import facts, groups

SPARSITY_NOTE = (
    "prune, 2of4, cluster16: zeros and shared values do not reduce latency in stock runtimes, only the size of the "
    "compressed file (zlib kB). slim removes channels and reduces latency."
)
CALIBRATION_NOTE = (
    "ECE: expected calibration error of the positive class' probability on test, 15 bins, at the temperature fitted on "
    "valid. Sensitivity at a specificity, and the reverse: bootstrap 95 % intervals; each resample chooses the "
    "threshold again on test. Flips: decisions that differ from the reference's at the manifest's threshold; p: "
    "McNemar's exact test."
)
UNSETTLED_MARK = "~"


def notes(results: Results) -> list[str]:
    """Return reasons of cells without figures, settings, and the effects of sparsity, training and slimming."""
    rows = results.measurements
    measured = [row for row in rows if row.measured]
    lines = _reasons(rows)
    if any(row.status == "unsettled" for row in rows):
        lines.append(
            f"{UNSETTLED_MARK} unsettled: the 95 % interval of p50 is wider than {_settled_width(results)}, or there "
            "was only one round; measure longer or on a quieter machine."
        )
    if measured:
        patches = max(row.n_patches or 0 for row in measured)
        synthetic = "synthetic " if facts.is_synthetic(results) else ""
        threads, batches = _values(row.threads for row in measured), _values(row.batch for row in measured)
        lines.append(
            f"{threads} thread(s), batch {batches}; AUC on {patches:,} {synthetic}patches with DeLong's 95 % interval; "
            "ratio and dAUC against the fp32 file of the same format and runtime; "
            "for fp32 files dAUC against the source network."
        )
    if any(row.recipe.startswith(("prune", "2of4", "cluster16")) for row in rows):
        lines.append(SPARSITY_NOTE)
    files = groups.files_on_runtimes(measured)
    return lines + _effect_of_training(files, measured) + _effect_of_slimming(files, measured)


def _reasons(rows: Iterable[Measurement]) -> list[str]:
    """Return why cells have no figures: a line for each status, runtime and reason."""
    models_by_reason: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if not row.measured:
            key = (row.status, row.runtime, row.reason or "no reason given")
            models_by_reason.setdefault(key, []).append(row.model)
    lines = []
    for (status, runtime, reason), models in models_by_reason.items():
        files = list(dict.fromkeys(models))
        name = files[0] if len(files) == 1 else f"{len(files)} files"
        count = f" ({len(models)} cells)" if len(models) > 1 else ""
        lines.append(f"{status}: {name} @ {runtime}: {reason}{count}")
    return lines


def _settled_width(results: Results) -> str:
    plan = results.inputs.get("plan")
    width = plan.get("settled_width") if isinstance(plan, dict) else None
    return f"{width:.0%} of p50" if isinstance(width, float | int) else "the limit of the plan"


def _effect_of_training(files: Iterable[Measurement], rows: Sequence[Measurement]) -> list[str]:
    """Compare ``int8`` with ``int8ptq``: one line for all runtimes with the same result."""
    places: dict[str, list[str]] = {}
    for row in files:
        if row.recipe == "int8ptq":
            trained = _same_cell(row, "int8", rows)
            if trained is None or trained.auc is None or row.auc is None:
                line = "int8ptq: no int8 file to compare with"
            else:
                verdict = "beats" if trained.auc.value > row.auc.value else "does not beat"
                line = f"quantisation-aware training {verdict} post-training quantisation in AUC: "
                line += f"int8 {trained.auc.value:.4f}, int8ptq {row.auc.value:.4f}"
            places.setdefault(line, []).append(_place(row))
    return [f"{line} ({', '.join(where)})" for line, where in places.items()]


def _effect_of_slimming(files: Iterable[Measurement], rows: Sequence[Measurement]) -> list[str]:
    """Compare slimmed files with the file of the whole network of the same precision: one line for each recipe."""
    ratios: dict[str, list[str]] = {}
    for row in files:
        if row.recipe.startswith("slim"):
            recipe = "int8" if row.recipe.endswith("_int8") else "fp32"
            whole = _same_cell(row, recipe, rows)
            if whole is None or whole.p50_ms is None or row.p50_ms is None:
                ratios.setdefault(f"{row.recipe}: no {recipe} file to compare with:", []).append(_place(row))
            else:
                ratio = f"{whole.p50_ms.value / row.p50_ms.value:.2f} ({_place(row)})"
                ratios.setdefault(f"p50 of {recipe} over that of {row.recipe}:", []).append(ratio)
    return [f"{line} {', '.join(parts)}" for line, parts in ratios.items()]


def _place(row: Measurement) -> str:
    return f"{groups.folder(row)}/{row.format} @ {row.runtime}".lstrip("/")


def _same_cell(row: Measurement, recipe: str, rows: Iterable[Measurement]) -> Measurement | None:
    """Return the cell of another recipe that is equal in everything else."""

    def key(other: Measurement) -> tuple[object, ...]:
        return groups.folder(other), other.format, other.runtime, other.threads, other.batch, other.field_px

    return next((other for other in rows if other.recipe == recipe and key(other) == key(row)), None)


def _values(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in sorted(set(values)))
