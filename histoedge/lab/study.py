"""A study on disk: opened again or refused, cleared of trials whose process is gone, and its rule for giving up.

It lies in Optuna's journal file: several processes may append to it where there is no database server, which Optuna
advises against for SQLite, and a killed one leaves whole lines.
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
from histoedge.lab.trainee import Trained

JOURNAL = "study.journal"
RIVALS = 4  # a median of fewer says little


def open_study(out: Path, holds: Mapping[str, Any]) -> Any:
    """The study in ``out``, made where there is none.

    Raises:
        ConfigError, DataError: as ``tune``.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = out / JOURNAL
    if not path.is_file() and out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no study of histoedge; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        study = optuna.create_study(
            study_name="histoedge", storage=storage, directions=["maximize", "minimize"], load_if_exists=True
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a readable journal of a study ({error!r}); give another --out") from error
    asked = json.loads(json.dumps(holds))
    held = study.user_attrs.get("holds")
    if held is None:
        study.set_user_attr("holds", asked)
        return study
    for table in asked:
        for key in sorted(asked[table].keys() | held.get(table, {}).keys()):
            was, now = held.get(table, {}).get(key), asked[table].get(key)
            if was != now:
                told = "is another one" if isinstance(was, dict) else f"is {was!r} there and {now!r} now"
                raise ConfigError(
                    f"{out} holds another study: {table}.{key} {told}; give the same settings or another --out"
                )
    return study


def bury(study: Any, out: Path) -> None:
    """Mark the trials of processes that are gone as failed, and remove what they left."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        number, started = trial.user_attrs.get("process", process(os.getpid()))
        if abs(process(number)[1] - started) > 2:  # it is gone, though its number may be in use again
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            shutil.rmtree(folder_of(out, trial.number), ignore_errors=True)


def process(number: int) -> tuple[int, float]:
    """A process and when it was started, in seconds."""
    with suppress(psutil.NoSuchProcess):
        return number, psutil.Process(number).create_time()
    return number, 0.0


def folder_of(out: Path, number: int) -> Path:
    """Where a trial works; gone when it has ended."""
    return out / f".trial-{number:04d}"


def trained(study: Any) -> list[Any]:
    """The finished trials but those whose network was over its budget."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in finished if "over_budget" not in trial.user_attrs]


class Rung:
    """Gives a bad trial up after a third of its epochs.

    Optuna's pruners do not serve studies of several objectives (``Trial.report`` and ``should_prune`` raise there), so
    this is its median rule by hand, on user attributes. Only trials with no more MACs are rivals: against all of them
    every small, fast network would be given up for its AUC, and the front with it.
    """

    def __init__(self, trial: Any, chosen: TrainConfig, network: Network) -> None:
        self.trial, self.macs = trial, network.macs()
        self.epoch = max(1, chosen.epochs // 3)
        self.last = chosen.epochs

    def __call__(self, known: Trained) -> None:
        """Called after each epoch; raises ``TrialPruned`` at the rung."""
        import optuna

        if len(known.history) != self.epoch or self.epoch == self.last:
            return
        rivals = [
            other.user_attrs["rung"]["auc"]
            for other in trained(self.trial.study)
            if "rung" in other.user_attrs and other.user_attrs["rung"]["macs"] <= self.macs
        ]
        self.trial.set_user_attr("rung", {"epoch": self.epoch, "auc": known.best_auc, "macs": self.macs})
        if len(rivals) >= RIVALS and known.best_auc < (median := float(np.median(rivals))):
            why = f"valid AUC {known.best_auc:.4f} after {self.epoch} epochs, the median up to its size is {median:.4f}"
            self.trial.set_user_attr("given_up", why)
            raise optuna.TrialPruned(why)
