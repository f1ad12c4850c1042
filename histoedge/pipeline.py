"""The main job: train, compress, export, verify, bench and report, each stage skipped when it is done already.

Stages talk through the files of the run, which name what they were made from; there is no other record. A run
that was killed is started again with the same arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from histoedge import benchmark, data, files, reporting, verification
from histoedge.cell import SOURCE
from histoedge.config import BenchPlan, CompressConfig, Device, PatchesOn, Recipe, TrainConfig
from histoedge.edge.errors import ComparisonFailed
from histoedge.progress import Progress, silent

if TYPE_CHECKING:
    from histoedge.lab.architecture import Network
    from histoedge.lab.watching import Watch


@dataclass(frozen=True)
class RunOutcome:
    """Where a run's files are: exported models, the results, the page."""

    models: tuple[Path, ...]
    results: Path
    page: Path


def run(
    source: str,
    out: Path,
    *,
    train_config: TrainConfig,
    network: "Network | None" = None,
    teacher: Path | None = None,
    compress_config: CompressConfig,
    plan: BenchPlan,
    recipes: Sequence[Recipe],
    device: Device = "auto",
    patches_on: PatchesOn = "auto",
    watches: "Sequence[Watch]" = (),
    cache: bool = True,
    progress: Progress = silent,
) -> RunOutcome:
    """Do all stages for these recipes and write ``OUT/bench.json`` and ``OUT/report.html``.

    ``network`` is what is trained; without it, the one that ``train_config`` names. ``teacher`` is the folder of a run
    on the same data, from whose network this one learns beside the labels. ``cache`` is that of ``data.load``.

    Raises:
        DataError, ConfigError, ModelError: something that cannot be used; what was done stays and is not done again.
        ComparisonFailed: a file fails verification (everything is written all the same).
    """
    from histoedge.lab import compress, export, train

    splits = data.load(source, cache=cache, progress=progress)
    for done, split in enumerate(splits.values(), start=1):
        progress(
            "data, splits", done, len(splits), f"{split.name}: {len(split.labels)} patches, {split.content_hash[:12]}"
        )
    trained = train.train(
        splits,
        train_config,
        out,
        network=network,
        teacher=teacher,
        device=device,
        patches_on=patches_on,
        watches=watches,
        progress=progress,
    )
    files.sweep(out)
    progress("train", 1, 1, f"valid AUC {trained.valid_auc:.4f}")
    compress.compress_all(
        out, recipes, splits, compress_config, device=device, patches_on=patches_on, progress=progress
    )
    models: list[Path] = []
    for done, recipe in enumerate(recipes, start=1):
        models += [exported.model for exported in export.export(out, recipe)]
        progress("export, recipes", done, len(recipes), recipe.name)
    renewed = [exported.model for exported in export.renew(out)]  # of recipes that were not asked for
    failed = []
    written = [*models, *renewed]
    for done, model in enumerate(written, start=1):
        if not verification.is_current(model) and not verification.verify(model).passed:
            failed.append(model.name)
        progress("verify, files", done, len(written), model.name)
    results = out / "bench.json"
    job = benchmark.BenchJob(
        models=models, plan=plan, split=splits["test"], reference=out / SOURCE, valid=splits["valid"]
    )
    if not benchmark.results_are_current(results, benchmark.bench_inputs(job)):
        benchmark.bench_to(results, job, progress=progress)
    page = out / "report.html"
    files.write_text(page, reporting.html(benchmark.read_results(results)))
    if failed:
        raise ComparisonFailed(f"{len(failed)} of {len(written)} files fail verification: {', '.join(failed)}")
    return RunOutcome(tuple(models), results, page)
