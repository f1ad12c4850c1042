"""What a reader must know beside the figures, in words; each thing once, however many cells it is about."""

from collections.abc import Iterable, Sequence

from histoedge.bench import Measurement, Results
from histoedge.report import groups

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
        settings = f"{_each(row.threads for row in measured)} thread(s), batch {_each(row.batch for row in measured)}"
        found.append(
            f"{settings}; AUC on {patches:,} patches with DeLong's 95 % interval; "
            "ratio and dAUC against the fp32 file of the same format and runtime, of fp32 files against the source."
        )
    if any(row.recipe.startswith(("prune", "2of4", "cluster16")) for row in rows):
        found.append(SPARSITY_NOTE)
    first = groups.files_on_runtimes(measured)
    found += [_what_training_bought(row, measured) for row in first if row.recipe == "int8ptq"]
    return found + [_what_slimming_bought(row, measured) for row in first if row.recipe.startswith("slim")]


def _reasons(rows: Iterable[Measurement]) -> list[str]:
    """Why cells have no figures: a line for each file, runtime and reason."""
    counts: dict[str, int] = {}
    for row in rows:
        if not row.measured:
            line = f"{row.status}: {row.model} @ {row.runtime}: {row.reason or 'no reason given'}"
            counts[line] = counts.get(line, 0) + 1
    return [line if count == 1 else f"{line} ({count} cells)" for line, count in counts.items()]


def _settled_width(results: Results) -> str:
    plan = results.inputs.get("plan")
    width = plan.get("settled_width") if isinstance(plan, dict) else None
    return f"{width:.0%} of it" if isinstance(width, float | int) else "the plan's share of it"


def _what_training_bought(untrained: Measurement, rows: Sequence[Measurement]) -> str:
    """``int8`` against ``int8ptq`` on one runtime, in words."""
    trained = _beside(untrained, "int8", rows)
    if trained is None or trained.auc is None or untrained.auc is None:
        return f"int8ptq @ {untrained.runtime}: no int8 beside it to compare with"
    verdict = "beats" if trained.auc > untrained.auc else "does not beat"
    return (
        f"quantisation-aware training {verdict} post-training quantisation here in AUC: int8 {trained.auc:.4f}, "
        f"int8ptq {untrained.auc:.4f} ({untrained.format} @ {untrained.runtime})"
    )


def _what_slimming_bought(slim: Measurement, rows: Sequence[Measurement]) -> str:
    """A slimmed file against the whole network's file of the same precision on one runtime, in words."""
    recipe = "int8" if slim.recipe.endswith("_int8") else "fp32"
    whole = _beside(slim, recipe, rows)
    if whole is None or whole.p50_ms is None or slim.p50_ms is None:
        return f"{slim.recipe} @ {slim.runtime}: no {recipe} beside it to compare with"
    return (
        f"{slim.recipe} is {whole.p50_ms / slim.p50_ms:.2f} times as fast as {recipe} ({slim.format} @ {slim.runtime})"
    )


def _beside(row: Measurement, recipe: str, rows: Iterable[Measurement]) -> Measurement | None:
    """The cell of another recipe that differs in nothing else."""

    def place(one: Measurement) -> tuple[object, ...]:
        return groups.folder(one), one.format, one.runtime, one.threads, one.batch, one.field_px

    return next((one for one in rows if one.recipe == recipe and place(one) == place(row)), None)


def _each(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in sorted(set(values)))
