"""Watching a training: a log, the history and its curves in the folder of the run, TensorBoard and MLflow."""

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
from histoedge.lab.trainee import Trained, log
from histoedge.progress import Progress

LOG = "train.log"
NOT_METRICS = ("epoch",)

Watch = Callable[[Trained], None]
"""Called after each epoch with what is known by then."""


@contextmanager
def logged(path: Path, *, enabled: bool = True) -> Iterator[None]:
    """Within it, what is logged of the training is also added to the file, with the time (UTC) before each line."""
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


def say(line: str, progress: Progress) -> None:
    """A line for the log and for whoever watches."""
    log.info("%s", line, extra={"shown": True})
    progress(line, 0, 0)


def summary(row: Mapping[str, float]) -> str:
    """A row of history in a few words."""
    return (
        f"loss {row['loss']:.4f}, valid loss {row['valid_loss']:.4f}, valid AUC {row['valid_auc']:.4f}, "
        f"{row['patches_per_s']:,.0f} patches/s"
    )


def history(run: Path) -> Watch:
    """Writes ``history.json`` and ``curves.png`` of the run."""

    def written(trained: Trained) -> None:
        files.write_json(run / "history.json", list(trained.history))
        _draw(run / "curves.png", trained.history)

    return written


def chosen(run: str, config: TrainConfig, *, tensorboard: Path | None, mlflow: str | None) -> list[Watch]:
    """The watches that were asked for; ``run`` is its name there.

    Raises:
        RuntimeUnavailable: what one of them needs is not installed.
    """
    found = [] if tensorboard is None else [to_tensorboard(tensorboard, run)]
    return found if mlflow is None else [*found, to_mlflow(mlflow, run, dataclasses.asdict(config))]


def to_tensorboard(folder: Path, run: str) -> Watch:
    """Writes event files for TensorBoard below ``folder``, under the run's name, a scalar for each figure.

    Raises:
        RuntimeUnavailable: TensorBoard is not installed.
    """
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise RuntimeUnavailable(f"--tensorboard: {error}; pip install 'histoedge[tensorboard]'") from error
    writer = Writer(str(folder / run))

    def written(trained: Trained) -> None:
        row = trained.history[-1]
        for name, value in _metrics(row).items():
            writer.add_scalar(name, value, step=int(row["epoch"]))
        writer.flush()

    return written


def to_mlflow(uri: str, run: str, settings: Mapping[str, Any]) -> Watch:
    """Logs settings and each epoch's figures to the MLflow server or folder at ``uri``, experiment ``histoedge``.

    Raises:
        RuntimeUnavailable: MLflow is not installed.
    """
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise RuntimeUnavailable(f"--mlflow: {error}; pip install 'histoedge[mlflow]'") from error
    client = MlflowClient(uri)
    held = client.get_experiment_by_name("histoedge")
    experiment = held.experiment_id if held else client.create_experiment("histoedge")
    number = client.create_run(experiment, run_name=run).info.run_id
    for name, value in settings.items():
        client.log_param(number, name, value)
    logged_epochs = 0

    def written(trained: Trained) -> None:
        nonlocal logged_epochs
        for row in trained.history[logged_epochs:]:  # a training that goes on logs its first epochs too
            for name, value in _metrics(row).items():
                client.log_metric(number, name, value, step=int(row["epoch"]))
        logged_epochs = len(trained.history)

    return written


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
