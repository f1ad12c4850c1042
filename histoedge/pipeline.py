"""All stages of a run: train, compress, export, verify, bench and report. Stages with current results are skipped.

Stages communicate only through the files of the run, which contain hashes of their inputs. To resume a killed run, call
it again with the same arguments.
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
    from histoedge.lab.callbacks import EpochCallback


@dataclass(frozen=True)
class RunOutcome:
    """Paths of a run's exported models, benchmark results and report page."""

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
    epoch_callbacks: "Sequence[EpochCallback]" = (),
    cache: bool = True,
    progress: Progress = silent,
) -> RunOutcome:
    """Run all stages for these recipes and write ``OUT/bench.json`` and ``OUT/report.html``.

    Args:
        source: folder of a data set, or ``synthetic``.
        out: folder of the run.
        train_config: training settings.
        network: network to train; default: the network that ``train_config`` names.
        teacher: folder of a run on the same data, whose network is the teacher of a distillation.
        compress_config: compression settings, see ``config.compress_settings``.
        plan: benchmark settings.
        recipes: recipes to compress and export.
        device: device of Keras.
        patches_on: where to store the training patches; no effect on the weights.
        epoch_callbacks: called after each epoch of the training.
        cache: see ``data.load``.
        progress: called during all stages.

    Raises:
        DataError, ConfigError, ModelError: invalid input; results of completed stages stay valid.
        ComparisonFailed: a file fails verification, after all files are written.
    """
    from histoedge.lab import catalogue, compress, export, keep_float, train

    chosen = network or catalogue.get_network(train_config.network)
    compress.check_recipes(chosen, recipes)
    keep_float.check_names(compress_config, chosen)
    splits = data.load(source, cache=cache, progress=progress)
    for done, split in enumerate(splits.values(), start=1):
        progress(
            "data, splits", done, len(splits), f"{split.name}: {len(split.labels)} patches, {split.content_hash[:12]}"
        )
    source_checkpoint = train.train(
        splits,
        train_config,
        out,
        network=network,
        teacher=teacher,
        device=device,
        patches_on=patches_on,
        epoch_callbacks=epoch_callbacks,
        progress=progress,
    )
    files.sweep(out)
    progress("train", 1, 1, f"valid AUC {source_checkpoint.valid_auc:.4f}")
    compress.compress_all(
        out, recipes, splits, compress_config, device=device, patches_on=patches_on, progress=progress
    )
    models: list[Path] = []
    for done, recipe in enumerate(recipes, start=1):
        models += [exported.model for exported in export.export(out, recipe)]
        progress("export, recipes", done, len(recipes), recipe.name)
    other_models = [exported.model for exported in export.export_outdated(out)]  # recipes that were not requested
    failed = []
    to_verify = [*models, *other_models]
    for done, model in enumerate(to_verify, start=1):
        if not verification.is_current(model) and not verification.verify(model).passed:
            failed.append(model.name)
        progress("verify, files", done, len(to_verify), model.name)
    results = out / "bench.json"
    job = benchmark.BenchJob(
        models=models, plan=plan, split=splits["test"], reference=out / SOURCE, valid=splits["valid"]
    )
    if not benchmark.results_are_current(results, benchmark.bench_inputs(job)):
        benchmark.bench_to(results, job, progress=progress)
    page = out / "report.html"
    files.write_text(page, reporting.html(benchmark.read_results(results)))
    if failed:
        raise ComparisonFailed(f"{len(failed)} of {len(to_verify)} files fail verification: {', '.join(failed)}")
    return RunOutcome(tuple(models), results, page)
