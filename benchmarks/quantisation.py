"""Learning rate and number of steps of quantisation-aware training.

``python benchmarks/quantisation.py RUN --data DATA --out F`` quantises the source network of RUN with each setting and
evaluates the simulated integer network, which computes as the deployed one, on the valid split only. Steps 0 is
``int8ptq``: the same calibration without training.
"""

import argparse
import dataclasses
import itertools
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import run_script, write_record

from histoedge import data, metrics
from histoedge.config import CompressConfig, Recipe
from histoedge.lab import batches, checkpoint, compress, finetune, quantise

RATES = (1e-5, 3e-5, 1e-4, 3e-4)
STEPS = (200, 600)


def quantisation_command() -> None:
    """Write a row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="finished run")
    parser.add_argument("--data", required=True, help="data set of the run")
    parser.add_argument("--recipe", default="int8", help="int8 recipe whose parent is quantised")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    arguments = parser.parse_args()
    splits = data.load(arguments.data, splits=("train", "valid"))
    settings = [(0.0, 0), *itertools.product(RATES, STEPS)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        run = Path(folder)
        recipe = Recipe.parse(arguments.recipe)
        for name in {"fp32", recipe.parent}:
            shutil.copy(checkpoint.path_of(arguments.run, str(name)), run)
        parent = checkpoint.read(checkpoint.path_of(run, str(recipe.parent)))
        floats = finetune.simulate(parent.network, parent.folded, Recipe.parse(str(recipe.parent)))
        expected = batches.logits_in_batches(floats, splits["valid"])
        for rate, steps in settings:
            config = CompressConfig(quantise_steps=steps)
            if steps:
                config = dataclasses.replace(config, quantise_learning_rate=rate)
            quantised = compress.compress(run, recipe, splits, config)
            logits = batches.logits_in_batches(
                finetune.simulate(quantised.network, quantised.arrays, recipe), splits["valid"]
            )
            difference = metrics.delong_difference(splits["valid"].labels, logits, expected)
            row = {
                "steps": steps,
                "learning_rate": rate,
                "largest_code": int(quantised.arrays[quantise.KERNEL_CODES][1]),
                "d_auc": difference.value,
                "d_auc_lo": difference.lo,
                "d_auc_hi": difference.hi,
                "logit_rms": float(np.sqrt(np.mean((logits - expected) ** 2))),
                "flips": metrics.flips(logits, expected),
            }
            rows.append(row)
            sys.stderr.write(f"{row}\n")
    write_record(
        arguments.out,
        kind="quantise",
        command=f"python benchmarks/quantisation.py RUN --data DATA --recipe {recipe.name} --out F",
        about=f"{recipe.name} with each setting, evaluated on the {len(expected):,} patches of `valid` only. Paired "
        "dAUC with its 95 % interval, rms logit difference and decision flips at logit 0, against the network before "
        "quantisation.",
        rows=rows,
    )


if __name__ == "__main__":
    run_script(quantisation_command)
