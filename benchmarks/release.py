"""Release a run: ``python benchmarks/release.py RUN --results R.json --into exported/NAME``.

Copies the fp32 and int8 files with their sidecars and writes a model card next to them. All figures on the card come
from R.json, the ``bench.json`` of RUN (hashes are compared), or from the manifest. ``release.py --cards`` writes the
cards of all released models again, from their committed results, and leaves the models unchanged.
"""

import argparse
import shutil
import sys
from pathlib import Path

import jinja2
import tables

from histoedge import benchmark, config, files
from histoedge.benchmark.results import Measurement, Results
from histoedge.edge import Manifest
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.lab import catalogue
from histoedge.reporting.tables import interval, kilobytes, micros

HERE = Path(__file__).parent
RECIPES = ("fp32", "int8")
SIDECARS = (manifests.manifest_path, goldens.golden_path, manifests.verdict_path)


def card(name: str, results: Results, place: str, manifest: Manifest) -> str:
    """The model card, Markdown (Mitchell et al. 2019, Model Cards for Model Reporting)."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return template.from_string((HERE / "card.md.j2").read_text()).render(
        name=name,
        rows=[row for row in results.measurements if row.recipe in RECIPES and row.format != "keras"],
        cpu=results.environment["cpu"],
        place=place,
        command=tables.run_command(name),
        symmetric=catalogue.named(name).symmetric,
        manifest=manifest,
        interval=interval,
        kilobytes=kilobytes,
        micros=micros,
        sensitivity=_sensitivity,
    )


def _sensitivity(row: Measurement) -> str:
    low, high = row.sensitivity_at_95_specificity_lo, row.sensitivity_at_95_specificity_hi
    return interval(row.sensitivity_at_95_specificity, low, high, digits=3)


def release_command() -> None:
    """Copy, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    results = benchmark.read_results(arguments.results)
    hashes = {row.sha256 for row in results.measurements}
    models = [arguments.run / "models" / f"{recipe}.{kind}" for recipe in RECIPES for kind in config.FORMATS]
    for model in models:
        if manifests.read(model).sha256 not in hashes:
            raise ModelError(f"{model}: not the file that {arguments.results} measured; bench the run again")
    target = arguments.into / "models"
    target.mkdir(parents=True, exist_ok=True)
    for model in models:
        for file in (model, *(place(model) for place in SIDECARS)):
            shutil.copyfile(file, target / file.name)
    shutil.copyfile(arguments.run / "network.json", arguments.into / "network.json")
    place = f"benchmarks/results/{arguments.results.parent.name}/{arguments.results.name}"
    text = card(arguments.into.name, results, place, manifests.read(models[-1]))
    files.write_text(arguments.into / "README.md", text)
    sys.stdout.write(f"{arguments.into / 'README.md'}\n")


if __name__ == "__main__":
    release_command()
