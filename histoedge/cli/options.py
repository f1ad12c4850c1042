"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from histoedge import config

Command = TypeVar("Command", bound=Callable[..., Any])


PATH = click.Path(path_type=Path)

no_cache_option = click.option("--no-cache", is_flag=True, help="Do not read or write the cache of DATA (.histoedge).")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else there.")
config_option = click.option(
    "--config", "file", type=PATH, metavar="F.toml", help="Settings, see `histoedge list settings`."
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "gpu", "cpu"]),
    default="auto",
    show_default=True,
    help="Where to train; `gpu` fails without a GPU.",
)


def _verbose(_ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from histoedge import progress

        progress.show_log()


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbose, help="Show the log on stderr too."
)
patches_on_option = click.option(
    "--patches-on",
    type=click.Choice(["auto", "device", "disk"]),
    default="auto",
    show_default=True,
    help="Hold the training patches where Keras computes, or read them from disk as needed. The weights are the same.",
)
threads_option = click.option("--threads", type=click.IntRange(1), help="Threads of the runtime.  [default: 1]")
recipe_option = click.option(
    "--recipe",
    "recipe_names",
    multiple=True,
    metavar="R",
    help=f"Repeatable, or `all`; default: {' '.join(config.DEFAULT_RECIPES)}.",
)


def data_option(command: Command) -> Command:
    """``--data``, which the command needs, and ``--no-cache``."""
    described = "Folder of a data set, or `synthetic`."
    return click.option("--data", "source", required=True, metavar="DATA", help=described)(no_cache_option(command))


def train_options(command: Command) -> Command:
    """Options of ``train``, which ``run`` takes too."""
    for option in (
        click.option("--seed", type=int, help="Seed of everything that is drawn.  [default: 0]"),
        click.option("--epochs", type=int, help="Passes over the training patches.  [default: 14]"),
        click.option("--network", metavar="NAME", help="See `histoedge list networks`.  [default: edge]"),
        click.option(
            "--teacher", type=PATH, metavar="RUN", help="Learn also from the network of another run on the same data."
        ),
        click.option("--out", required=True, type=PATH, metavar="RUN", help="Folder to write."),
        data_option,
    ):
        command = option(command)
    return command


def watch_options(command: Command) -> Command:
    """Where to log each epoch besides the run."""
    for option in (
        click.option("--mlflow", metavar="URI", help="Log each epoch to this MLflow server or folder."),
        click.option("--tensorboard", type=PATH, metavar="DIR", help="Write each epoch to DIR for TensorBoard."),
    ):
        command = option(command)
    return command
