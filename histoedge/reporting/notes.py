"""What a reader must know beside the figures, in words; each thing once, however many cells it is about."""

from collections.abc import Iterable, Sequence

from histoedge.benchmark import Measurement, Results
from histoedge.reporting import facts, groups

SPARSITY_NOTE = (
    "prune, 2of4, cluster16: zeros and shared values buy no time in stock runtimes, only a smaller compressed file "
    "(zlib kB); slim removes channels, which does."
)
CALIBRATION_NOTE = (
    "ECE: calibration error of the probability of tumour on test, 15 bins, at the temperature fitted on valid; "
    "sensitivity at a specificity and the reverse with bootstrap 95 % intervals, the threshold chosen on test anew in "
    "each draw; flips: decisions that differ from the reference's at the manifest's threshold, p after McNemar."
)
UNSETTLED_MARK = "~"


def notes(results: Results) -> list[str]:
    """Reasons, settings, and what sparsity, training and slimming did."""
    rows = results.measurements
    measured = [row for row in rows if row.measured]
    found = _reasons(rows)
    if any(row.status == "unsettled" for row in rows):
        found.append(
            f"{UNSETTLED_MARK} unsettled: the 95 % interval of p50 is wider than {_settled_width(results)}, or of one "
            "round; measure longer or on a quieter machine."
        )
    if measured:
        patches = max(row.n_patches or 0 for row in measured)
        drawn = "synthetic " if facts.is_synthetic(results) else ""
        settings = f"{_each(row.threads for row in measured)} thread(s), batch {_each(row.batch for row in measured)}"
        found.append(
            f"{settings}; AUC on {patches:,} {drawn}patches with DeLong's 95 % interval; "
            "ratio and dAUC against the fp32 file of the same format and runtime, of fp32 files against the source."
        )
    if any(row.recipe.startswith(("prune", "2of4", "cluster16")) for row in rows):
        found.append(SPARSITY_NOTE)
    first = groups.files_on_runtimes(measured)
    return found + _what_training_bought(first, measured) + _what_slimming_bought(first, measured)


def _reasons(rows: Iterable[Measurement]) -> list[str]:
    """Why cells have no figures: a line for each status, runtime and reason."""
    without: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if not row.measured:
            without.setdefault((row.status, row.runtime, row.reason or "no reason given"), []).append(row.model)
    lines = []
    for (status, runtime, reason), models in without.items():
        files = list(dict.fromkeys(models))
        name = files[0] if len(files) == 1 else f"{len(files)} files"
        count = f" ({len(models)} cells)" if len(models) > 1 else ""
        lines.append(f"{status}: {name} @ {runtime}: {reason}{count}")
    return lines


def _settled_width(results: Results) -> str:
    plan = results.inputs.get("plan")
    width = plan.get("settled_width") if isinstance(plan, dict) else None
    return f"{width:.0%} of it" if isinstance(width, float | int) else "the plan's share of it"


def _what_training_bought(first: Iterable[Measurement], rows: Sequence[Measurement]) -> list[str]:
    """``int8`` against ``int8ptq``, in words: a line for all runtimes on which it comes out alike."""
    found: dict[str, list[str]] = {}
    for row in first:
        if row.recipe == "int8ptq":
            trained = _beside(row, "int8", rows)
            if trained is None or trained.auc is None or row.auc is None:
                said = "int8ptq: no int8 beside it to compare with"
            else:
                verdict = "beats" if trained.auc > row.auc else "does not beat"
                said = f"quantisation-aware training {verdict} post-training quantisation here in AUC: "
                said += f"int8 {trained.auc:.4f}, int8ptq {row.auc:.4f}"
            found.setdefault(said, []).append(_place(row))
    return [f"{said} ({', '.join(places)})" for said, places in found.items()]


def _what_slimming_bought(first: Iterable[Measurement], rows: Sequence[Measurement]) -> list[str]:
    """Slimmed files against the whole network's file of the same precision, in words: a line for each recipe."""
    found: dict[str, list[str]] = {}
    for row in first:
        if row.recipe.startswith("slim"):
            recipe = "int8" if row.recipe.endswith("_int8") else "fp32"
            whole = _beside(row, recipe, rows)
            if whole is None or whole.p50_ms is None or row.p50_ms is None:
                found.setdefault(f"{row.recipe}: no {recipe} beside it to compare with:", []).append(_place(row))
            else:
                ratio = f"{whole.p50_ms / row.p50_ms:.2f} ({_place(row)})"
                found.setdefault(f"p50 of {recipe} over that of {row.recipe}:", []).append(ratio)
    return [f"{said} {', '.join(places)}" for said, places in found.items()]


def _place(row: Measurement) -> str:
    return f"{groups.folder(row)}/{row.format} @ {row.runtime}".lstrip("/")


def _beside(row: Measurement, recipe: str, rows: Iterable[Measurement]) -> Measurement | None:
    """The cell of another recipe that differs in nothing else."""

    def place(one: Measurement) -> tuple[object, ...]:
        return groups.folder(one), one.format, one.runtime, one.threads, one.batch, one.field_px

    return next((one for one in rows if one.recipe == recipe and place(one) == place(row)), None)


def _each(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in sorted(set(values)))
