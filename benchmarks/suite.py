"""The benchmark suite on the released models: ``python benchmarks/suite.py [--data DATA] [--config F.toml]``.

Measures ``exported/*`` by the plan of ``suite.toml`` into ``results/<machine>/suite.json``, on synthetic patches into
``suite-synthetic.json``: their AUC says nothing about real tissue and never stands in for it. Stopped and started
again, it keeps what was finished.
"""

import argparse
import os
import sys
from pathlib import Path

from histoedge import benchmark, config, data
from histoedge.benchmark import environment
from histoedge.config import BenchPlan
from histoedge.data import Split
from histoedge.edge.errors import HistoedgeError
from histoedge.progress import on_terminal

HERE = Path(__file__).parent
RELEASED = HERE.parent / "exported"
NAME, SYNTHETIC = "suite", "-synthetic"
DATA_VARIABLE = "HISTOEDGE_DATA"


def is_synthetic(split: Split) -> bool:
    """Whether the patches are drawn, by their slides' names: also those that ``histoedge data synth`` wrote."""
    return split.slides is not None and any(slide.startswith(f"{split.name}-slide-") for slide in split.slides)


def place(results: Path, split: Split) -> Path:
    """The results file for these patches on this machine."""
    name = NAME + (SYNTHETIC if is_synthetic(split) else "")
    return results / environment.machine_name(environment.this_machine()) / f"{name}.json"


def suite_command() -> None:
    """Measure, and say where the results are."""
    parser = argparse.ArgumentParser(description=__doc__)
    told = f"default: ${DATA_VARIABLE}, else synthetic"
    parser.add_argument("--data", default=os.environ.get(DATA_VARIABLE) or "synthetic", help=told)
    parser.add_argument("--config", type=Path, default=HERE / "suite.toml")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of all machines' results")
    parser.add_argument("models", type=Path, nargs="*", metavar="RUN|MODEL", help="default: all of exported/")
    arguments = parser.parse_args()
    plan = config.resolve(BenchPlan, file=arguments.config, options={})
    models, reference = benchmark.find_models(arguments.models or sorted(RELEASED.glob("*/")))
    with on_terminal() as show:
        split = data.load(arguments.data, splits=("test",))["test"]
        out = place(arguments.results, split)
        benchmark.bench_to(out, models, plan=plan, split=split, reference=reference, progress=show)
    sys.stdout.write(f"{out}\n")


if __name__ == "__main__":
    try:
        suite_command()
    except HistoedgeError as error:
        sys.exit(str(error))
