"""Which learning rate and length quantisation-aware training needs.

``python benchmarks/quantisation.py RUN --data DATA --out F`` quantises the source network of RUN with every setting and
judges it on the valid split alone, as it will be deployed (the simulated integer network). Steps 0 is ``int8ptq``:
the same calibration and no training.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from histoedge import data, files, metrics
from histoedge.benchmark import environment
from histoedge.config import CompressConfig, Recipe
from histoedge.lab import batches, checkpoint, compress, quantise

RATES = (1e-5, 3e-5, 1e-4, 3e-4)
STEPS = (200, 600)


def quantisation_command() -> None:
    """Write one row per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="int8")
    parser.add_argument("--out", type=Path, required=True)
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
        floats = compress.simulated(parent.network, parent.folded, Recipe.parse(str(recipe.parent)))
        expected = batches.logits_in_batches(floats, splits["valid"])
        for rate, steps in settings:
            config = CompressConfig(quantise_steps=steps, **({"quantise_learning_rate": rate} if steps else {}))
            made = compress.compress(run, recipe, splits, config)
            found = batches.logits_in_batches(compress.simulated(made.network, made.arrays, recipe), splits["valid"])
            difference = metrics.delong_difference(splits["valid"].labels, found, expected)
            row = {
                "steps": steps,
                "learning_rate": rate,
                "largest_code": int(made.arrays[quantise.KERNEL_CODES][1]),
                "d_auc": difference.value,
                "d_auc_lo": difference.lo,
                "d_auc_hi": difference.hi,
                "logit_rms": float(np.sqrt(np.mean((found - expected) ** 2))),
                "flips": metrics.flips(found, expected),
            }
            rows.append(row)
            sys.stderr.write(f"{row}\n")
    files.write_json(
        arguments.out,
        {
            "format": 1,
            "kind": "quantise",
            "about": f"{recipe.name} with each setting, judged on the {len(expected):,} patches of `valid` alone: "
            "paired dAUC with its 95 % interval, rms logit difference and decision flips at logit 0 against the "
            "network that is quantised.",
            "command": f"python benchmarks/quantisation.py RUN --data DATA --recipe {recipe.name} --out F",
            "environment": environment.this_machine(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    quantisation_command()
