"""What each finished training reached on `valid`: ``python benchmarks/trainings.py NAME=RUN... --out F``.

NAME is what the row is called: the settings file of the run without ``.toml``, and what was different.
"""

import argparse
import json
from pathlib import Path

from histoedge import files
from histoedge.benchmark import environment
from histoedge.lab import checkpoint


def trainings_command() -> None:
    """A row per run, from its network.json, history.json and weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = {name: Path(run) for name, _, run in (one.partition("=") for one in arguments.runs)}
    names = {files.sha256(checkpoint.path_of(run, "fp32")): name for name, run in runs.items()}
    rows = []
    for name, run in runs.items():
        told = json.loads((run / "network.json").read_text())
        history = json.loads((run / "history.json").read_text())
        best = max(history, key=lambda row: row["valid_auc"])
        rows.append(
            {
                "training": name,
                "network": told["network"]["name"],
                "taught by": names[told["teacher"]] if told["teacher"] else "nobody",
                "learning rate": told["train"]["learning_rate"],
                "stain jitter": told["train"]["stain_jitter"],
                "seed": told["train"]["seed"],
                "epochs": len(history),
                "best epoch": best["epoch"],
                "AUC on valid": best["valid_auc"],
            }
        )
    document = {
        "format": 1,
        "kind": "trainings",
        "about": "Every training of a released network, and those it learnt from: AUC on `valid` of the best epoch.",
        "command": "python benchmarks/trainings.py NAME=RUN... --out F",
        "environment": environment.this_machine(),
        "rows": rows,
    }
    files.write_json(arguments.out, document)


if __name__ == "__main__":
    trainings_command()
