"""The Optuna study of ``tune`` on disk: open it, clean up after killed processes, prune bad trials early.

The study is in Optuna's journal file. Several processes can append to it without a database server (Optuna advises
against SQLite for this), and a killed process leaves only complete lines.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from histoedge.config import TrainConfig
from histoedge.edge.errors import ConfigError, DataError
from histoedge.lab.architecture import Network
from histoedge.lab.trainee import TrainingState

JOURNAL = "study.journal"
MINIMUM_TRIALS = 4  # for a meaningful median


def open_study(out: Path, inputs: Mapping[str, Any]) -> Any:
    """Open the study in ``out``, or create it.

    Args:
        out: folder of the study.
        inputs: settings of the study, as JSON; an existing study must have the same.

    Raises:
        ConfigError: another study, or other files in ``out``.
        DataError: the journal cannot be read.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = out / JOURNAL
    if not path.is_file() and out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise ConfigError(f"{out}: not empty and not a study of histoedge; use another --out")
    out.mkdir(parents=True, exist_ok=True)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        study = optuna.create_study(
            study_name="histoedge", storage=storage, directions=["maximize", "minimize"], load_if_exists=True
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a readable journal of a study ({error!r}); use another --out") from error
    current = json.loads(json.dumps(inputs))
    existing = study.user_attrs.get("holds")
    if existing is None:
        study.set_user_attr("holds", current)
        return study
    for table in current:
        for key in sorted(current[table].keys() | existing.get(table, {}).keys()):
            old, new = existing.get(table, {}).get(key), current[table].get(key)
            if old != new:
                difference = "differs" if isinstance(old, dict) else f"is {old!r} there and {new!r} now"
                remedy = "the version of histoedge that started it" if table == "search" else "the same settings"
                raise ConfigError(
                    f"{out}: contains another study: {table}.{key} {difference}; use {remedy} or another --out"
                )
    return study


def fail_dead_trials(study: Any, out: Path) -> None:
    """Mark running trials of processes that have ended as failed, and remove their folders."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        number, started = trial.user_attrs.get("process", process_identity(os.getpid()))
        if abs(process_identity(number)[1] - started) > 2:  # a new process may have the same number
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            shutil.rmtree(trial_folder(out, trial.number), ignore_errors=True)


def process_identity(number: int) -> tuple[int, float]:
    """Return the number of a process and its start time in seconds; 0.0 if there is no such process."""
    with suppress(psutil.NoSuchProcess):
        return number, psutil.Process(number).create_time()
    return number, 0.0


def trial_folder(out: Path, number: int) -> Path:
    """Return the folder of a running trial, removed at its end."""
    return out / f".trial-{number:04d}"


def trained_trials(study: Any) -> list[Any]:
    """Return the finished trials, without those over the budget, which are not trained."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in finished if "over_budget" not in trial.user_attrs]


class MedianPruner:
    """Epoch callback that ends a trial after a third of its epochs if its AUC is below the median.

    Optuna's pruners do not support several objectives (``Trial.report`` and ``should_prune`` raise). This is Optuna's
    median rule, on user attributes. The median is over trials with at most the same number of MACs: with all trials it
    would end every small, fast network, and these are part of the Pareto front.
    """

    def __init__(self, trial: Any, settings: TrainConfig, network: Network) -> None:
        self.trial, self.macs = trial, network.macs()
        self.epoch = max(1, settings.epochs // 3)
        self.last = settings.epochs

    def __call__(self, state: TrainingState) -> None:
        """Compare the trial after ``epoch`` epochs.

        Raises:
            optuna.TrialPruned: the AUC is below the median.
        """
        import optuna

        if len(state.history) != self.epoch or self.epoch == self.last:
            return
        aucs = [
            other.user_attrs["rung"]["auc"]
            for other in trained_trials(self.trial.study)
            if "rung" in other.user_attrs and other.user_attrs["rung"]["macs"] <= self.macs
        ]
        self.trial.set_user_attr("rung", {"epoch": self.epoch, "auc": state.best_auc, "macs": self.macs})
        if len(aucs) >= MINIMUM_TRIALS and state.best_auc < (median := float(np.median(aucs))):
            reason = (
                f"valid AUC {state.best_auc:.4f} after {self.epoch} epochs, below the median {median:.4f} of trials "
                "with at most as many MACs"
            )
            self.trial.set_user_attr("given_up", reason)
            raise optuna.TrialPruned(reason)
