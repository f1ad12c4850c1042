"""The command import."""

from pathlib import Path

import click

import histoedge
from histoedge.cli.group import main
from histoedge.cli.options import PATH, config_option, data_option, json_option, verbose_option
from histoedge.cli.output import print_json


@main.command("import")
@click.argument("model", metavar="MODEL")
@click.option("--out", required=True, type=PATH, metavar="RUN", help="Folder of the run.")
@data_option
@click.option(
    "--pixels",
    type=click.Choice(["0..255", "0..1", "-1..1"]),
    help="Values that MODEL's input expects.  [default: 0..255 if its first layer rescales]",
)
@click.option(
    "--positive",
    type=click.IntRange(0, 1),
    default=1,
    show_default=True,
    help="Output of the positive class; with a single output, 0 means that it is the negative class.",
)
@click.option("--name", help="Name of the network.  [default: that of the file or the function]")
@click.option("--trust-code", is_flag=True, help="Allow MODEL to be package.module:function, and execute that code.")
@config_option
@verbose_option
@json_option
def import_command(
    model: str,
    out: Path,
    source: str,
    no_cache: bool,
    pixels: str | None,
    positive: int,
    name: str | None,
    trust_code: bool,
    file: Path | None,
    as_json: bool,
) -> None:
    """Import a trained Keras model (.keras, whole-model .h5) into a run, for compress, export, verify and bench."""
    from histoedge import progress
    from histoedge.lab import checkpoint, layer_graph
    from histoedge.lab.architecture import Network

    with progress.on_terminal() as show:
        imported = histoedge.import_model(
            model,
            out=out,
            data=source,
            name=name,
            pixels=pixels,
            positive=positive,
            trust_code=trust_code,
            config=file,
            no_cache=no_cache,
            progress=show,
        )
    saved = imported.checkpoint
    network = saved.architecture
    document = {
        "weights": str(checkpoint.path_of(out, "fp32")),
        "network": network.name,
        "layers": len(network.layers),
        "not_as_rows": None if isinstance(network, Network) else network.reason,
        "edge_mode": "valid" if network.dense else "patch",
        "pixels": imported.pixels,
        "valid_auc": saved.valid_auc,
        "patches_compared": imported.n_compared,
        "largest_difference": imported.largest_difference,
    }
    if as_json:
        print_json(document)
        return
    click.echo(
        f"{document['weights']}: {document['layers']} layers, valid AUC {saved.valid_auc:.4f}\n"
        f"largest difference from the Keras model on {imported.n_compared} patches: "
        f"{imported.largest_difference:.1e} in the logit"
    )
    if not isinstance(network, Network):
        click.echo(
            f"kept as Keras layers: {network.reason}\n"
            f"recipes: {', '.join(layer_graph.RECIPES)}; slides are computed patch by patch"
        )
    if saved.valid_auc < 0.5:
        click.echo(f"the AUC is below 0.5: are the classes swapped? Try --positive {1 - positive}", err=True)
