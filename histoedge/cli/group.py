"""The group of all commands, and the exit codes.

Exit codes: 0 done; 1 an error, one line on stderr; 2 wrong usage; 3 a comparison failed; 130 stopped with Ctrl-C.
"""

from typing import Any

import click

from histoedge import __version__, edge
from histoedge.edge.errors import HistoedgeError, RuntimeUnavailable

_EXTRA_OF = {
    **dict.fromkeys(("scipy", "h5py", "psutil", "rich", "jinja2", "matplotlib"), "bench"),
    **dict.fromkeys(("onnx", "tf2onnx"), "lab"),
    **dict.fromkeys(("openslide", "tifffile", "imagecodecs", "zarr", "skimage", "shapely"), "slides"),
    **dict.fromkeys(("distributed", "dask"), "cluster"),
    "optuna": "tune",
}

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Group(click.Group):
    """Turns expected errors into one line and an exit code; any other exception is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HistoedgeError as error:
            click.echo(f"histoedge: {' '.join(str(error).split())}", err=True)
            ctx.exit(error.exit_code)
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get(error.name or "")
            if extra is None:
                raise
            message = f"{ctx.invoked_subcommand} needs {error.name}, which is not installed"
            click.echo(f"histoedge: {message}: pip install 'histoedge[{extra}]'", err=True)
            ctx.exit(RuntimeUnavailable.exit_code)
        except KeyboardInterrupt:
            click.echo("histoedge: stopped; run the same command again to resume", err=True)
            ctx.exit(INTERRUPTED)


def _version(ctx: click.Context, _: click.Parameter, requested: bool) -> None:
    if requested:
        click.echo(f"histoedge {__version__}")
        for row in edge.RUNTIMES.values():
            click.echo(f"{row.name} {row.installed_version() or f'not installed ({row.install})'}")
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the versions of histoedge and its runtimes.",
)
def main() -> None:
    """Train, compress, verify and deploy a small CNN that detects metastatic tissue in lymph-node patches.

    DATA is a folder with patches and labels in one of the layouts of `list layouts`, or the word `synthetic`.
    RUN is the folder of a run.
    """
