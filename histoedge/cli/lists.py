"""The command list: networks, recipes, runtimes, settings, layouts."""

import json
from collections.abc import Callable
from typing import Any

import click

from histoedge import config, edge
from histoedge.cli.group import main
from histoedge.cli.options import json_option
from histoedge.cli.output import print_rows


@main.command("list")
@click.argument("what", type=click.Choice(["networks", "recipes", "runtimes", "settings", "layouts"]))
@json_option
def list_command(what: str, as_json: bool) -> None:
    """List the available networks, recipes or runtimes, all keys of a settings file, or the layouts of DATA."""
    rows = _LISTS[what]()
    if what == "settings" and not as_json:  # in the notation of the file
        rows = [{**row, "default": None if row["default"] is None else json.dumps(row["default"])} for row in rows]
    print_rows(rows, as_json=as_json)


def _networks() -> list[dict[str, Any]]:
    from histoedge.lab import catalogue

    return catalogue.overview()


def _recipes() -> list[dict[str, Any]]:
    return [{"recipe": name, "what": config.Recipe.parse(name).summary} for name in config.RECIPES]


def _runtimes() -> list[dict[str, Any]]:
    return [
        {
            "runtime": row.name,
            "opens": ", ".join(row.formats),
            "version": row.installed_version(),
            "install": None if row.installed() else row.install,
        }
        for row in edge.all_runtimes().values()
    ]


def _settings() -> list[dict[str, Any]]:
    from histoedge.lab import catalogue

    rows = [row for table, kind in config.KINDS.items() for row in config.setting_rows(kind, table=table)]
    return rows + catalogue.network_setting_rows()


def _layouts() -> list[dict[str, Any]]:
    from histoedge.data import sources

    return [
        {"layout": name, "files": layout.files, "content": layout.content} for name, layout in sources.layouts().items()
    ]


_LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "networks": _networks,
    "recipes": _recipes,
    "runtimes": _runtimes,
    "settings": _settings,
    "layouts": _layouts,
}
