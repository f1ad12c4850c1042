"""Records of a training: the log, the history and its curves in the run's folder, TensorBoard and MLflow."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from histoedge import files
from histoedge.config import TrainConfig
from histoedge.edge.errors import RuntimeUnavailable
from histoedge.lab import backend
from histoedge.lab.trainee import TrainingState, log
from histoedge.progress import Progress

LOG = "train.log"
NOT_METRICS = ("epoch",)

EpochCallback = Callable[[TrainingState], None]
"""Called after each epoch with the history and the best weights."""


@contextmanager
def log_to(path: Path, *, enabled: bool = True) -> Iterator[None]:
    """Append the log of the training to a file inside the ``with`` block; each line starts with the time in UTC."""
    if not enabled:
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    log.addHandler(handler)
    try:
        yield
    except BaseException as error:
        log.info("stopped: %s", " ".join(f"{type(error).__name__} {error}".split()))
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


def announce(line: str, progress: Progress) -> None:
    """Write a line to the log and to the progress display."""
    log.info("%s", line, extra={"shown": True})
    progress(line, 0, 0)


def summary(row: Mapping[str, float]) -> str:
    """Return a row of the history as short text."""
    return (
        f"loss {row['loss']:.4f}, valid loss {row['valid_loss']:.4f}, valid AUC {row['valid_auc']:.4f}, "
        f"{row['patches_per_s']:,.0f} patches/s"
    )


def history_writer(run: Path) -> EpochCallback:
    """Return a callback that writes ``history.json`` and ``curves.png`` of the run."""

    def write(state: TrainingState) -> None:
        files.write_json(run / "history.json", list(state.history))
        _draw(run / "curves.png", state.history)

    return write


def make_callbacks(
    run: str, config: TrainConfig, *, tensorboard: Path | None, mlflow: str | None
) -> list[EpochCallback]:
    """Return the callbacks for the requested services.

    Args:
        run: name of the run in TensorBoard and MLflow.
        config: settings to log.
        tensorboard: folder of the event files, or None.
        mlflow: URI of the server or folder, or None.

    Raises:
        RuntimeUnavailable: the package of a requested service is not installed.
    """
    callbacks = [] if tensorboard is None else [to_tensorboard(tensorboard, run)]
    return callbacks if mlflow is None else [*callbacks, to_mlflow(mlflow, run, dataclasses.asdict(config))]


def to_tensorboard(folder: Path, run: str) -> EpochCallback:
    """Return a callback that writes TensorBoard event files to ``folder/run``, one scalar per figure.

    Raises:
        RuntimeUnavailable: TensorBoard is not installed.
    """
    try:
        with backend.quiet():  # TensorBoard imports TensorFlow
            from tensorboard.summary import Writer

            writer = Writer(str(folder / run))
    except ImportError as error:
        raise RuntimeUnavailable(f"--tensorboard: {error}; pip install 'histoedge[tensorboard]'") from error

    def write(state: TrainingState) -> None:
        row = state.history[-1]
        for name, value in _metrics(row).items():
            writer.add_scalar(name, value, step=int(row["epoch"]))
        writer.flush()

    return write


def to_mlflow(uri: str, run: str, settings: Mapping[str, Any]) -> EpochCallback:
    """Return a callback that logs settings and figures to MLflow at ``uri``, in the experiment ``histoedge``.

    Raises:
        RuntimeUnavailable: MLflow is not installed.
    """
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise RuntimeUnavailable(f"--mlflow: {error}; pip install 'histoedge[mlflow]'") from error
    client = MlflowClient(uri)
    existing = client.get_experiment_by_name("histoedge")
    experiment = existing.experiment_id if existing else client.create_experiment("histoedge")
    number = client.create_run(experiment, run_name=run).info.run_id
    for name, value in settings.items():
        client.log_param(number, name, value)
    logged_epochs = 0

    def write(state: TrainingState) -> None:
        nonlocal logged_epochs
        for row in state.history[logged_epochs:]:  # a resumed training logs its earlier epochs, too
            for name, value in _metrics(row).items():
                client.log_metric(number, name, value, step=int(row["epoch"]))
        logged_epochs = len(state.history)

    return write


def _metrics(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in NOT_METRICS}


def _draw(path: Path, rows: tuple[dict[str, float], ...]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for axes, key, label in ((left, "loss", "training"), (left, "valid_loss", "validation"), (right, "valid_auc", "")):
        axes.plot(epochs, [row.get(key) for row in rows], marker="o", markersize=3, label=label)
    left.set(xlabel="epoch", title="loss")
    left.legend()
    right.set(xlabel="epoch", title="validation AUC")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
