"""Release a run: ``python benchmarks/release.py RUN --results R.json --into exported/NAME``.

Copies the fp32 and int8 files with their sidecars and writes a model card next to them. All figures on the card come
from R.json, the ``bench.json`` of RUN (hashes are compared), or from the manifest. ``make tables`` writes the cards of
released models again from their committed results.
"""

import argparse
import shutil
import sys
from pathlib import Path

import jinja2
from committed import HERE, ResultsFile, committed_results, run_command
from record import run_script

from histoedge import files
from histoedge.benchmark import Measurement
from histoedge.edge import Manifest
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.lab import catalogue
from histoedge.reporting.tables import interval, kilobytes, micros, with_bounds

RECIPES = ("fp32", "int8")
SIDECARS = (manifests.manifest_path, goldens.golden_path, manifests.verdict_path)


def model_card(name: str, file: ResultsFile, manifest: Manifest) -> str:
    """Return the model card, Markdown (Mitchell et al. 2019, Model Cards for Model Reporting)."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return template.from_string((HERE / "card.md.j2").read_text()).render(
        name=name,
        rows=[row for row in file.bench.measurements if row.recipe in RECIPES and row.format != "keras"],
        cpu=file.bench.environment["cpu"],
        place=f"benchmarks/{file.place}",
        command=run_command(name),
        symmetric=catalogue.get_network(name).symmetric,
        manifest=manifest,
        interval=interval,
        kilobytes=kilobytes,
        micros=micros,
        with_bounds=with_bounds,
        sensitivity=_sensitivity,
    )


def _sensitivity(row: Measurement) -> str:
    return with_bounds(row.sensitivity_at_95_specificity, digits=3)


def model_files(folder: Path) -> list[Path]:
    """Return the paths of the released files in the folder of a run or of a released model."""
    return [folder / "models" / f"{recipe}.{kind}" for recipe in RECIPES for kind in manifests.FORMATS]


def released_folders() -> list[Path]:
    """Return the folders of the released models."""
    return [path.parent for path in sorted(HERE.parent.glob("exported/*/models"))]


def results_of(folder: Path) -> ResultsFile:
    """Return the committed results of a released model."""
    (file,) = (file for file in committed_results() if file.name == folder.name and not file.without_amx)
    return file


def released_card(folder: Path) -> str:
    """Return the card of a released model, from its committed results."""
    return model_card(folder.name, results_of(folder), manifests.read(model_files(folder)[-1]))


def release_command() -> None:
    """Copy the files and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="finished run")
    parser.add_argument("--results", type=Path, required=True, help="bench.json of the run")
    parser.add_argument("--into", type=Path, required=True, help="folder of the released model")
    arguments = parser.parse_args()
    measured = ResultsFile(arguments.results)
    hashes = {row.sha256 for row in measured.bench.measurements}
    models = model_files(arguments.run)
    for model in models:
        if manifests.read(model).sha256 not in hashes:
            raise ModelError(f"{model}: not the file measured in {arguments.results}; bench the run again")
    target = arguments.into / "models"
    target.mkdir(parents=True, exist_ok=True)
    for model in models:
        for file in (model, *(path_of(model) for path_of in SIDECARS)):
            shutil.copyfile(file, target / file.name)
    shutil.copyfile(arguments.run / "network.json", arguments.into / "network.json")
    text = model_card(arguments.into.name, measured, manifests.read(models[-1]))
    files.write_text(arguments.into / "README.md", text)
    sys.stdout.write(f"{arguments.into / 'README.md'}\n")


if __name__ == "__main__":
    run_script(release_command)
