"""Searching training settings and architecture with Optuna: a high valid AUC and a low int8 latency at once.

A trial trains a network, quantises it (``int8ptq``), exports it, and times the file on LiteRT beside a fixed reference,
the network ``edge``, in alternating rounds. The objectives are the int8 file's AUC on valid and the *ratio* of the two
medians: a ratio measured in one run survives a machine that is slower tomorrow, microseconds do not.
"""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.cell import Cell
from histoedge.config import BenchPlan, CompressConfig, PatchesOn, Recipe, TrainConfig
from histoedge.data import Split
from histoedge.edge.errors import DataError, ModelError
from histoedge.lab import backend, batches, catalogue, checkpoint, compress, export, front, placement, space, train
from histoedge.lab import study as studies
from histoedge.lab.architecture import Network
from histoedge.lab.catalogue import BUDGETS
from histoedge.lab.front import Point
from histoedge.progress import Progress, silent

INT8 = Recipe.parse("int8ptq")
REFERENCE = "edge"
REFERENCE_PATCHES = 256  # enough to train it to anything: its weights do not change how fast it is
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
    """Go on with the study in ``out`` until it holds ``trials`` trained trials; the Pareto front and the best of it.

    Several processes may call it on one folder of one machine; each then may be one trial too many at the end. A trial
    whose network is over the budget of its name is not trained and does not count. The best is the point of the front
    with the highest AUC: all of them are within the budget, where there is one. Writes what ``front.write`` does.
    TensorFlow keeps some 10 MB of each trial: start a search of many hundreds again now and then.

    Args:
        splits: ``train`` and ``valid``.
        base: what all trials share, from ``settings``.
        out: the folder of the study.
        trials: how many to train, those that were given up included.
        patches: so many training patches, drawn by the seed; all of them without it.
        compress_config: of the post-training quantisation.
        plan: rounds, runs and time-out of the measurement, which has one thread and single patches.
        patches_on: where the training patches lie; the weights are the same.
        progress: called as each epoch and trial ends.

    Raises:
        ConfigError: ``out`` holds another study, or something else.
        DataError: the journal of the study cannot be read.
        ModelError: no trial came to its end.
        CellFailed: a file cannot be timed.
    """
    splits = {"train": batches.drawn(splits["train"], patches, seed=base.seed), "valid": splits["valid"]}
    holds = {
        "train": dataclasses.asdict(base),
        "compress": dataclasses.asdict(compress_config),
        "bench": {name: getattr(plan, name) for name in ("rounds", "runs_per_round", "warmup_runs")},
        "data": {name: split.content_hash for name, split in splits.items()},
        "search": {"space": space.SPACE, "reference": catalogue.get_network(REFERENCE).as_json()},
    }
    study = studies.open_study(out, holds)
    studies.bury(study, out)

    def tell(_: Any, trial: Any) -> None:
        done = len(studies.trained(study))
        if "over_budget" not in trial.user_attrs:
            progress("tune, trials", min(done, trials), trials, f"trial {trial.number}: {_outcome(trial)}")
        if done >= trials:
            study.stop()

    if len(studies.trained(study)) < trials:
        with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
            work = _Work(splits, base, compress_config, plan, patches_on, out, Path(folder), progress)
            study.optimize(work.trial, callbacks=[tell])
    done = studies.trained(study)
    points = [Point(**trial.user_attrs["point"]) for trial in done if "point" in trial.user_attrs]
    if not points:
        raise ModelError(f"{out}: none of {len(done)} trials came to its end; try more, or other settings")
    return front.write_front(out, points, [trial.number for trial in study.best_trials], holds=holds)


class _Work:
    """What the trials of one process share: data, settings, and the reference that they are timed beside."""

    def __init__(
        self,
        splits: Mapping[str, Split],
        base: TrainConfig,
        compress_config: CompressConfig,
        plan: BenchPlan,
        patches_on: PatchesOn,
        out: Path,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.splits, self.base, self.compress_config = splits, base, compress_config
        self.plan, self.patches_on, self.out, self.progress = plan, patches_on, out, progress
        few = {name: batches.drawn(split, REFERENCE_PATCHES, seed=base.seed) for name, split in splits.items()}
        once = dataclasses.replace(base, network=REFERENCE, epochs=1, batch=32)
        self.reference, _ = self._int8(few, catalogue.get_network(REFERENCE), once, folder / "reference")
        self.timed = folder / "timed.npy"
        np.save(self.timed, batches.drawn(splits["valid"], TIMED_PATCHES, seed=base.seed).patches[:])

    def trial(self, trial: Any) -> tuple[float, float]:
        """Train, quantise and time one point of the search space: AUC on valid, latency over the reference's."""
        import optuna

        trial.set_user_attr("process", studies.process(os.getpid()))
        seed = np.random.SeedSequence([self.base.seed, trial.number]).generate_state(1)[0]
        trial.study.sampler = optuna.samplers.TPESampler(seed=int(seed))  # else all processes draw the same first ones
        chosen, network = space.suggest(trial, self.base)
        if network.name in BUDGETS and (cost := catalogue.over_budget(network, network.name)):
            trial.set_user_attr("over_budget", cost)
            raise optuna.TrialPruned(cost)
        folder = studies.folder_of(self.out, trial.number)
        try:
            model, made = self._int8(self.splits, network, chosen, folder, watch=studies.Rung(trial, chosen, network))
            ratio, p50_us = self._timed(model)
            point = Point(
                trial=trial.number,
                valid_auc=made.valid_auc,
                p50_ratio=ratio,
                int8_p50_us=p50_us,
                mmac=network.macs() / 1e6,
                int8_kb=model.stat().st_size / 1000,
                train=dataclasses.asdict(chosen),
                network=network.as_json(),
            )
        except (DataError, ModelError) as error:  # logits that are not finite, a dead layer
            trial.set_user_attr("given_up", str(error))
            raise optuna.TrialPruned(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        trial.set_user_attr("point", dataclasses.asdict(point))
        return point.valid_auc, point.p50_ratio

    def _int8(
        self, splits: Mapping[str, Split], network: Network, chosen: TrainConfig, folder: Path, watch: Any = None
    ) -> tuple[Path, checkpoint.Checkpoint]:
        """The network, trained and quantised: its TFLite file and its weights."""
        for keras in (backend.keras(), backend.tf_keras()):
            keras.backend.clear_session()  # the trial before must not cost memory
        devices = backend.use_device("auto")  # again: clearing forgets the precision
        where = placement.choose(self.patches_on, splits["train"], network, batch=chosen.batch, devices=devices)
        inputs = train.train_inputs(chosen, splits, network)
        trained = train.fit(
            network,
            splits,
            chosen,
            state=folder / train.STATE,
            inputs=inputs,
            devices=devices,
            patches_on=where.on,
            watches=[] if watch is None else [watch],
            progress=self.progress,
        )
        train.write_source(folder, network, trained, inputs, splits)
        made = compress.compress(folder, INT8, splits, self.compress_config)
        (exported,) = export.export(folder, INT8, formats=("tflite",))
        return exported.model, made

    def _timed(self, model: Path) -> tuple[float, float]:
        """Median latency over the reference's, and in microseconds; one process of a study measures at a time."""
        from optuna.storages.journal import JournalFileOpenLock

        times: dict[Path, list[np.ndarray]] = {model: [], self.reference: []}
        lock = JournalFileOpenLock(str(self.out / ".measuring"), grace_period=60)
        lock.acquire()
        try:
            with Cell(timeout_s=self.plan.timeout_s) as one, Cell(timeout_s=self.plan.timeout_s) as other:
                cells = [(one, model), (other, self.reference)]
                for cell, path in cells:
                    cell.load(path, runtime="litert")
                for number in range(self.plan.rounds):
                    settings = {"n": self.plan.runs_per_round, "start": number, "warmup": self.plan.warmup_runs}
                    for cell, path in cells if number % 2 else reversed(cells):
                        times[path].append(cell.time(self.timed, **settings)[0])
        finally:
            with suppress(RuntimeError):  # held for longer than its grace, it was taken away
                lock.release()
        ratio = metrics.ratio_of_medians(times[model], times[self.reference], seed=self.base.seed)
        return ratio.value, 1e3 * float(np.median(times[model]))


def _outcome(trial: Any) -> str:
    if "point" in trial.user_attrs:
        point = Point(**trial.user_attrs["point"])
        return f"valid AUC {point.valid_auc:.4f}, {point.p50_ratio:.2f} x {REFERENCE}"
    return f"given up: {trial.user_attrs.get('given_up')}"
