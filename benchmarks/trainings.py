"""AUC of finished trainings on `valid`: ``python benchmarks/trainings.py NAME=RUN... --out F``.

NAME is the name of the row: the run's settings file without ``.toml``, and what differed from it.
"""

import argparse
import json
from pathlib import Path

from record import run_script, write_record

from histoedge import files
from histoedge.lab import checkpoint


def trainings_command() -> None:
    """Write a row for each run, from its network.json, history.json and weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="finished runs")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    arguments = parser.parse_args()
    runs = {name: Path(run) for name, _, run in (argument.partition("=") for argument in arguments.runs)}
    names = {files.sha256(checkpoint.path_of(run, "fp32")): name for name, run in runs.items()}
    rows = []
    for name, run in runs.items():
        inputs = json.loads((run / "network.json").read_text())
        history = json.loads((run / "history.json").read_text())
        best = max(history, key=lambda epoch: epoch["valid_auc"])
        rows.append(
            {
                "training": name,
                "network": inputs["network"]["name"],
                "taught by": names[inputs["teacher"]] if inputs["teacher"] else "nobody",
                "learning rate": inputs["train"]["learning_rate"],
                "stain jitter": inputs["train"]["stain_jitter"],
                "seed": inputs["train"]["seed"],
                "epochs": len(history),
                "best epoch": best["epoch"],
                "AUC on valid": best["valid_auc"],
            }
        )
    write_record(
        arguments.out,
        kind="trainings",
        command="python benchmarks/trainings.py NAME=RUN... --out F",
        about="All trainings of the released networks and of their teachers: AUC on `valid` of the best epoch.",
        rows=rows,
    )


if __name__ == "__main__":
    run_script(trainings_command)
