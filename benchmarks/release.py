"""Release a run: ``python benchmarks/release.py RUN --data DATA --results R.json --into exported/NAME``.

Copies the fp32 and int8 files with their sidecars, and writes a model card and the statistics of the training pixels
beside them. Every figure on the card comes from R.json (the ``bench.json`` of that very run, hashes compared), from
the manifest, or from ``inputs.json``, which this writes.
"""

import argparse
import shutil
import sys
from pathlib import Path

import jinja2
import numpy as np
import tables

from histoedge import bench, config, data, files
from histoedge.bench.results import Measurement, Results
from histoedge.data.picture import stains
from histoedge.edge import Manifest
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.lab import network as networks
from histoedge.report.tables import interval, kilobytes, micros

HERE = Path(__file__).parent
RECIPES = ("fp32", "int8")
SIDECARS = (manifests.manifest_path, manifests.golden_path, manifests.verdict_path)
SAMPLE = 4_000


def input_statistics(source: str) -> dict[str, object]:
    """What training pixels look like: per patch means over a seeded sample, their mean and 1st to 99th percentile."""
    split = data.load(source, splits=("train",))["train"]
    chosen = np.sort(np.random.default_rng(0).permutation(len(split.labels))[:SAMPLE])
    patches = split.patches[chosen]
    densities = stains(patches)
    measured = {
        "red": patches[..., 0].mean(axis=(1, 2)),
        "green": patches[..., 1].mean(axis=(1, 2)),
        "blue": patches[..., 2].mean(axis=(1, 2)),
        "contrast": patches.mean(axis=3).std(axis=(1, 2)),
        "haematoxylin": densities[:, 0],
        "eosin": densities[:, 1],
    }
    return {
        "about": "Per patch: mean of each channel (0..255), standard deviation of the grey value, mean optical density "
        "of haematoxylin and eosin (histoedge.data.picture.stains). A scanner whose patches often fall outside "
        "p01..p99 sees something else than the network was trained on.",
        "data": split.content_hash,
        "n_patches": len(patches),
        "statistics": {
            name: dict(
                zip(
                    ("mean", "p01", "p50", "p99"),
                    (float(f"{value:.5g}") for value in (found.mean(), *np.percentile(found, (1, 50, 99)))),
                    strict=True,
                )
            )
            for name, found in measured.items()
        },
    }


def card(name: str, results: Results, place: str, manifest: Manifest, inputs: dict[str, object]) -> str:
    """The model card, Markdown (Mitchell et al. 2019, Model Cards for Model Reporting)."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return template.from_string((HERE / "card.md.j2").read_text()).render(
        name=name,
        rows=[row for row in results.measurements if row.recipe in RECIPES and row.format != "keras"],
        cpu=results.environment["cpu"],
        place=place,
        command=tables.run_command(name),
        symmetric=networks.named(name).symmetric,
        manifest=manifest,
        inputs=inputs,
        interval=interval,
        kilobytes=kilobytes,
        micros=micros,
        sensitivity=_sensitivity,
    )


def _sensitivity(row: Measurement) -> str:
    low, high = row.sensitivity_at_95_specificity_lo, row.sensitivity_at_95_specificity_hi
    return interval(row.sensitivity_at_95_specificity, low, high, digits=3)


def main() -> None:
    """Copy, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    results = bench.read(arguments.results)
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
    inputs = input_statistics(arguments.data)
    files.write_json(arguments.into / "inputs.json", inputs)
    place = f"benchmarks/results/{arguments.results.parent.name}/{arguments.results.name}"
    text = card(arguments.into.name, results, place, manifests.read(models[-1]), inputs)
    files.write_text(arguments.into / "README.md", text)
    sys.stdout.write(f"{arguments.into / 'README.md'}\n")


if __name__ == "__main__":
    main()
