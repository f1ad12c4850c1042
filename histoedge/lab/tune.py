"""Search training settings and architecture with Optuna for a high valid AUC and a low int8 latency.

A trial trains a network, quantises it (``int8ptq``), exports it, and measures its latency on LiteRT in rounds that
alternate with a fixed reference, the network ``edge``. The objectives are the int8 file's AUC on valid and the *ratio*
of the two median latencies: a change in the machine's speed between trials changes times, but not the ratio.
"""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.cell import Cell
from histoedge.config import BenchPlan, CompressConfig, PatchesOn, Recipe, TrainConfig
from histoedge.data import Split
from histoedge.edge.errors import ConfigError, DataError, ModelError
from histoedge.edge.patches import PATCH_PX
from histoedge.lab import backend, batches, catalogue, checkpoint, compress, export, front, placement, space, train
from histoedge.lab import study as studies
from histoedge.lab.architecture import Network
from histoedge.lab.callbacks import EpochCallback
from histoedge.lab.catalogue import BUDGETS
from histoedge.lab.front import Point
from histoedge.lab.trainee import TrainingJob
from histoedge.progress import Progress, silent

INT8 = Recipe.parse("int8ptq")
REFERENCE = "edge"
REFERENCE_PATCHES = 256  # few are enough: the latency does not depend on the weights
TIMED_PATCHES = 64


def tune(
    splits: Mapping[str, Split],
    base: TrainConfig,
    out: Path,
    *,
    trials: int,
    patches: int | None = None,
    compress_config: CompressConfig,
    plan: BenchPlan,
    patches_on: PatchesOn = "auto",
    progress: Progress = silent,
) -> tuple[list[Point], Point]:
    """Run trials until the study in ``out`` has ``trials`` trained ones; write the Pareto front, see ``front``.

    Several processes of one machine can work on the same folder; each may add one surplus trial at the end. A trial
    over the budget of its network family is not trained and does not count. TensorFlow keeps about 10 MB per trial:
    restart a search of many hundred trials from time to time.

    Args:
        splits: ``train`` and ``valid``.
        base: settings common to all trials, from ``space.base_settings``.
        out: folder of the study.
        trials: number of trained trials, including those pruned early.
        patches: number of random training patches; None for all.
        compress_config: settings of the post-training quantisation.
        plan: rounds, runs and time limit of the measurement, which uses one thread and single patches.
        patches_on: where to store the training patches; no effect on the weights.
        progress: called after each epoch and trial.

    Returns:
        The Pareto front by latency, and its point with the highest AUC.

    Raises:
        ConfigError: ``out`` contains another study or other files, patches of another size than 96 px, or layers are to
            stay in float.
        DataError: the journal of the study cannot be read.
        ModelError: no trial was completed.
        CellFailed: the latency of a file cannot be measured.
    """
    if (side := splits["train"].patch_px) != PATCH_PX:
        raise ConfigError(f"tune searches networks for patches of {PATCH_PX} px, the data has {side} px; use train")
    if compress_config.keep_float:
        raise ConfigError(
            "tune: [compress] keep_float is set, but the layers of each trial differ; remove it for the search"
        )
    splits = {"train": batches.draw_subset(splits["train"], patches, seed=base.seed), "valid": splits["valid"]}
    inputs = {
        "train": dataclasses.asdict(base),
        "compress": compress.settings_json(compress_config),
        "bench": {name: getattr(plan, name) for name in ("rounds", "runs_per_round", "warmup_runs")},
        "data": {name: split.content_hash for name, split in splits.items()},
        "search": {"space": space.SPACE, "reference": catalogue.get_network(REFERENCE).as_json()},
    }
    study = studies.open_study(out, inputs)
    studies.fail_dead_trials(study, out)

    def report(_: Any, trial: Any) -> None:
        done = len(studies.trained_trials(study))
        if "over_budget" not in trial.user_attrs:
            progress("tune, trials", min(done, trials), trials, f"trial {trial.number}: {_outcome(trial)}")
        if done >= trials:
            study.stop()

    if len(studies.trained_trials(study)) < trials:
        with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
            job = _SearchJob(splits, base, compress_config, plan, patches_on, out, Path(folder), progress)
            study.optimize(_Objective(job), callbacks=[report])
    done = studies.trained_trials(study)
    points = [Point(**trial.user_attrs["point"]) for trial in done if "point" in trial.user_attrs]
    if not points:
        raise ModelError(f"{out}: none of {len(done)} trials was completed; run more trials or change the settings")
    return front.write_front(out, points, [trial.number for trial in study.best_trials], inputs=inputs)


@dataclasses.dataclass(frozen=True)
class _SearchJob:
    """Data and settings of a search; ``out`` is the folder of the study, ``folder`` that of this process."""

    splits: Mapping[str, Split]
    base: TrainConfig
    compress_config: CompressConfig
    plan: BenchPlan
    patches_on: PatchesOn
    out: Path
    folder: Path
    progress: Progress


class _Objective:
    """Optuna's objective function for the trials of one process, with the exported reference network."""

    def __init__(self, job: _SearchJob) -> None:
        self.job, base = job, job.base
        small = {
            name: batches.draw_subset(split, REFERENCE_PATCHES, seed=base.seed) for name, split in job.splits.items()
        }
        settings = dataclasses.replace(base, network=REFERENCE, epochs=1, batch=32)
        self.reference, _ = self._int8_model(
            small, catalogue.get_network(REFERENCE), settings, job.folder / "reference"
        )
        self.timed_patches = job.folder / "timed.npy"
        np.save(self.timed_patches, batches.draw_subset(job.splits["valid"], TIMED_PATCHES, seed=base.seed).patches[:])

    def __call__(self, trial: Any) -> tuple[float, float]:
        """Train, quantise and time a trial; return its AUC on valid and its latency relative to the reference.

        Raises:
            optuna.TrialPruned: over budget, worse than the median, or the training failed.
        """
        import optuna

        trial.set_user_attr("process", studies.process_identity(os.getpid()))
        seed = np.random.SeedSequence([self.job.base.seed, trial.number]).generate_state(1)[0]
        # one sampler per trial: else all processes would start with the same trials
        trial.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        settings, network = space.suggest(trial, self.job.base)
        if network.name in BUDGETS and (message := catalogue.over_budget(network, network.name)):
            trial.set_user_attr("over_budget", message)
            raise optuna.TrialPruned(message)
        folder = studies.trial_folder(self.job.out, trial.number)
        pruner = studies.MedianPruner(trial, settings, network)
        try:
            model, quantised = self._int8_model(self.job.splits, network, settings, folder, callbacks=[pruner])
            ratio, p50_us = self._latency(model)
            point = Point(
                trial=trial.number,
                valid_auc=quantised.valid_auc,
                p50_ratio=ratio,
                int8_p50_us=p50_us,
                mmac=network.macs() / 1e6,
                int8_kb=model.stat().st_size / 1000,
                train=dataclasses.asdict(settings),
                network=network.as_json(),
            )
        except (DataError, ModelError) as error:  # for example logits that are not finite, or a dead layer
            trial.set_user_attr("given_up", str(error))
            raise optuna.TrialPruned(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        trial.set_user_attr("point", dataclasses.asdict(point))
        return point.valid_auc, point.p50_ratio

    def _int8_model(
        self,
        splits: Mapping[str, Split],
        network: Network,
        settings: TrainConfig,
        folder: Path,
        callbacks: Sequence[EpochCallback] = (),
    ) -> tuple[Path, checkpoint.Checkpoint]:
        """Train and quantise a network; return its TFLite file and its weights."""
        for keras in (backend.keras(), backend.tf_keras()):
            keras.backend.clear_session()  # free the memory of the previous trial
        devices = backend.use_device("auto")  # again: clear_session resets the precision
        where = placement.choose(self.job.patches_on, splits["train"], network, batch=settings.batch, devices=devices)
        inputs = train.train_inputs(settings, splits, network)
        training = TrainingJob(network=network, splits=splits, config=settings, devices=devices, patches_on=where.on)
        result = train.fit(
            training,
            state=folder / train.STATE,
            inputs=inputs,
            epoch_callbacks=callbacks,
            progress=self.job.progress,
        )
        train.write_source(folder, network, result, inputs, splits)
        quantised = compress.compress(folder, INT8, splits, self.job.compress_config)
        (exported,) = export.export(folder, INT8, formats=("tflite",))
        return exported.model, quantised

    def _latency(self, model: Path) -> tuple[float, float]:
        """Return the median latency relative to the reference, and in microseconds.

        A lock ensures that only one process of a study measures at a time.
        """
        from optuna.storages.journal import JournalFileOpenLock

        plan = self.job.plan
        times: dict[Path, list[np.ndarray]] = {model: [], self.reference: []}
        lock = JournalFileOpenLock(str(self.job.out / ".measuring"), grace_period=60)
        lock.acquire()
        try:
            with Cell(timeout_s=plan.timeout_s) as model_cell, Cell(timeout_s=plan.timeout_s) as reference_cell:
                cells = [(model_cell, model), (reference_cell, self.reference)]
                for cell, path in cells:
                    cell.load(path, runtime="litert")
                for number in range(plan.rounds):
                    settings = {"n": plan.runs_per_round, "start": number, "warmup": plan.warmup_runs}
                    for cell, path in cells if number % 2 else reversed(cells):
                        times[path].append(cell.time(self.timed_patches, **settings)[0])
        finally:
            with suppress(RuntimeError):  # another process took over a lock older than the grace period
                lock.release()
        ratio = metrics.ratio_of_medians(times[model], times[self.reference], seed=self.job.base.seed)
        return ratio.value, 1e3 * float(np.median(times[model]))


def _outcome(trial: Any) -> str:
    if "point" in trial.user_attrs:
        point = Point(**trial.user_attrs["point"])
        return f"valid AUC {point.valid_auc:.4f}, {point.p50_ratio:.2f} x {REFERENCE}"
    return f"pruned: {trial.user_attrs.get('given_up')}"
