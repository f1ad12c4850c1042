"""Run the benchmark suite on the released models: ``python benchmarks/suite.py [--data DATA] [--config F.toml]``.

Measures ``exported/*`` by the plan of ``suite.toml`` and writes ``results/<machine>/suite.json``. Without real data it
measures on synthetic patches and writes ``suite-synthetic.json``: an AUC on synthetic patches is no evidence about real
tissue. After an interruption it continues with the cells that are missing.
"""

import argparse
import os
import sys
from pathlib import Path

from record import run_script

from histoedge import benchmark, config, data
from histoedge.benchmark import environment
from histoedge.config import BenchPlan
from histoedge.data import Split
from histoedge.progress import on_terminal

HERE = Path(__file__).parent
RELEASED = HERE.parent / "exported"
NAME, SYNTHETIC = "suite", "-synthetic"
DATA_VARIABLE = "HISTOEDGE_DATA"


def is_synthetic(split: Split) -> bool:
    """Whether the patches are synthetic, also when read from a folder of ``histoedge data synth``; from slide names."""
    return split.slides is not None and any(slide.startswith(f"{split.name}-slide-") for slide in split.slides)


def results_path(results: Path, split: Split) -> Path:
    """Return the path of the results file for these patches on this machine."""
    name = NAME + (SYNTHETIC if is_synthetic(split) else "")
    return results / environment.machine_name(environment.this_machine()) / f"{name}.json"


def suite_command() -> None:
    """Measure and print the path of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    default_data = f"default: ${DATA_VARIABLE}, else synthetic"
    parser.add_argument("--data", default=os.environ.get(DATA_VARIABLE) or "synthetic", help=default_data)
    parser.add_argument("--config", type=Path, default=HERE / "suite.toml", help="plan of the benchmark")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of all machines' results")
    parser.add_argument("models", type=Path, nargs="*", metavar="RUN|MODEL", help="default: all of exported/")
    arguments = parser.parse_args()
    plan = config.resolve(BenchPlan, file=arguments.config, options={})
    models, reference = benchmark.find_models(arguments.models or sorted(RELEASED.glob("*/")))
    with on_terminal() as show:
        split = data.load(arguments.data, splits=("test",))["test"]
        out = results_path(arguments.results, split)
        job = benchmark.BenchJob(models=models, plan=plan, split=split, reference=reference)
        benchmark.bench_to(out, job, progress=show)
    sys.stdout.write(f"{out}\n")


if __name__ == "__main__":
    run_script(suite_command)
