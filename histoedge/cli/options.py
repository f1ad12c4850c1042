"""Options shared by several commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from histoedge import config

Command = TypeVar("Command", bound=Callable[..., Any])


PATH = click.Path(path_type=Path)

no_cache_option = click.option("--no-cache", is_flag=True, help="Do not read or write the cache of DATA (.histoedge).")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout, and nothing else."
)
config_option = click.option(
    "--config", "file", type=PATH, metavar="F.toml", help="Settings file, see `histoedge list settings`."
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "gpu", "cpu"]),
    default="auto",
    show_default=True,
    help="Where to train; `gpu` fails without a GPU.",
)


def _verbose(_ctx: click.Context, _: click.Parameter, requested: bool) -> None:
    if requested:
        from histoedge import progress

        progress.show_log()


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbose, help="Also print the log on stderr."
)
patches_on_option = click.option(
    "--patches-on",
    type=click.Choice(["auto", "device", "disk"]),
    default="auto",
    show_default=True,
    help="Store the training patches where Keras computes, or read them from disk. The weights are the same.",
)
threads_option = click.option("--threads", type=click.IntRange(1), help="Threads of the runtime.  [default: 1]")
recipe_option = click.option(
    "--recipe",
    "recipe_names",
    multiple=True,
    metavar="R",
    help=f"Recipe, repeatable, or `all`.  [default: {' '.join(config.DEFAULT_RECIPES)}]",
)


def data_option(command: Command) -> Command:
    """Add the required ``--data``, and ``--no-cache``."""
    text = "Folder of a data set, or `synthetic`."
    return click.option("--data", "source", required=True, metavar="DATA", help=text)(no_cache_option(command))


def train_options(command: Command) -> Command:
    """Add the options that ``train`` and ``run`` share."""
    for option in (
        click.option("--seed", type=int, help="Seed of all random numbers.  [default: 0]"),
        click.option("--epochs", type=int, help="Number of epochs.  [default: 14]"),
        click.option("--network", metavar="NAME", help="Name in `histoedge list networks`.  [default: edge]"),
        click.option(
            "--teacher", type=PATH, metavar="RUN", help="Also learn from the network of another run on the same data."
        ),
        click.option("--out", required=True, type=PATH, metavar="RUN", help="Folder of the run."),
        data_option,
    ):
        command = option(command)
    return command


def watch_options(command: Command) -> Command:
    """Add the options that log each epoch outside the run."""
    for option in (
        click.option("--mlflow", metavar="URI", help="Log each epoch to this MLflow server or folder."),
        click.option("--tensorboard", type=PATH, metavar="DIR", help="Write each epoch to DIR for TensorBoard."),
    ):
        command = option(command)
    return command
