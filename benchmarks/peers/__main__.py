"""Compare a run's int8 files with others: ``python benchmarks/peers RUN --data DATA --out F [--baseline RUN]``.

RUN is a finished run with the recipes fp32, int8 and int8ptq. Each other quantiser quantises the fp32 network of RUN
with the calibration patches of int8ptq. Other networks are measured in the same rounds: MobileNetV2 0.35 and ResNet-18
untrained, for latency and size only, and ``baseline``, trained where its run is given. All files accept raw uint8
pixels. All are timed in one run: one thread, batch 1, interleaved rounds in random order, each turn in a fresh child
process, because the time of a file differs by some per cent from process to process. NNCF is not a dependency of
histoedge: run ``pip install nncf`` first.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for record.py and targets.py

import judgement
import measurement
import numpy as np
import others
from measurement import PEER_COMMAND, SPLITS, Peer
from quantisers import QUANTISERS, QuantiserJob
from record import changed_options, run_script, write_record

from histoedge import data, files, progress
from histoedge.cell import EDGE_COMMAND, SOURCE
from histoedge.config import BenchPlan, CompressConfig
from histoedge.data import Split
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError, RuntimeUnavailable
from histoedge.lab import backend, batches, checkpoint
from histoedge.progress import Progress

RECIPES = ("fp32", "int8", "int8ptq")
PLACES = (("tflite", "litert"), ("onnx", "onnxruntime"), ("onnx", "openvino"))
WARMUP_RUNS = 200  # each turn starts with a cold process


def compare(
    run: Path, splits: Mapping[str, Split], plan: BenchPlan, show: Progress, *, baseline: Path | None = None
) -> dict[str, Any]:
    """Return ``rows`` of the quantisers, ``networks`` of the other networks, and the ``verdict``.

    Raises:
        HistoedgeError: a file of the run is missing or of another source network, or a file cannot be opened or run.
    """
    check_run(run, splits)
    job = QuantiserJob(run, calibration_patches(splits["train"]), splits["valid"])
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        quantised = [*_ours(run), *_quantised(job, Path(folder), show)]
        other_peers = _others(baseline, job.patches, Path(folder), show)
        measurement.predict_splits([*quantised, *other_peers], splits, plan, show)
        measurement.time_rounds([*quantised, *other_peers], splits["test"], plan, Path(folder) / "timed.npy", show)
    labels = {name: np.asarray(splits[name].labels) for name in SPLITS}
    rows, verdict = judgement.judge(quantised, labels)
    return {"rows": rows, "networks": judgement.judge_others(other_peers, quantised, labels), "verdict": verdict}


def check_run(run: Path, splits: Mapping[str, Split]) -> None:
    """Check the files and the data of the run.

    Raises:
        ModelError: a file is missing or of another source network.
        ConfigError: the data is not that of the run.
    """
    source = checkpoint.read(run / SOURCE)
    sha256 = files.sha256(run / SOURCE)
    for recipe in RECIPES:
        for format_ in ("tflite", "onnx"):
            model = run / "models" / f"{recipe}.{format_}"
            if manifests.read(model).parents["source"] != sha256:
                raise ModelError(f"{model}: not exported from {run / SOURCE}; export it again")
    for name in ("train", "valid"):
        if splits[name].content_hash != source.inputs["data"][name]:
            raise ConfigError(f"{run}: trained on another {name} split; pass the --data of the run")


def calibration_patches(train: Split) -> np.ndarray:
    """Return the calibration patches of the compress stage, uint8 (N, 96, 96, 3)."""
    config = CompressConfig()
    chosen = np.sort(batches.order(len(train.labels), seed=config.seed, epoch=0)[: config.calibration_patches])
    return np.asarray(train.patches[chosen])


def _ours(run: Path) -> list[Peer]:
    ours = []
    for format_, runtime in PLACES:
        for recipe in RECIPES:
            model = run / "models" / f"{recipe}.{format_}"
            row = {"name": recipe, "peer": False, "made_by": "histoedge", "file": model.name, "runtime": runtime}
            ours.append(Peer(row | {"size_bytes": model.stat().st_size}, model, EDGE_COMMAND))
    return ours


def _quantised(job: QuantiserJob, folder: Path, show: Progress) -> list[Peer]:
    peers = []
    for name, quantiser in QUANTISERS.items():
        place = folder / quantiser.package
        place.mkdir()
        with backend.quiet(), contextlib.redirect_stdout(sys.stderr):
            result = quantiser.quantise(job, place)
        size = sum(part.stat().st_size for part in place.iterdir())  # OpenVINO's format is two files
        row = {"name": name, "peer": True, "made_by": f"{quantiser.package} {version(quantiser.package)}"}
        row |= {"file": result.model.name, "runtime": quantiser.runtime, "size_bytes": size}
        row |= {"settings": result.settings, "candidates": list(result.candidates)}
        peers.append(Peer(row, result.model, PEER_COMMAND))
        show("peers, quantised", len(peers), len(QUANTISERS), name)
    return peers


def _others(baseline: Path | None, patches: np.ndarray, folder: Path, show: Progress) -> list[Peer]:
    peers = []
    networks = others.other_networks(baseline)
    for number, network in enumerate(networks):
        place = folder / f"other-{number}"
        place.mkdir()
        with backend.quiet(), contextlib.redirect_stdout(sys.stderr):
            model = network.build()
            exported = others.export_others(model, patches, place)
        described = {"name": network.name, "trained": network.trained, "made_by": f"tensorflow {version('tensorflow')}"}
        described |= {"params": others.params(model), "macs": others.macs(model)}
        for file in exported:
            for format_, runtime in PLACES:
                if file.suffix == f".{format_}":
                    row = {**described, "file": file.name, "runtime": runtime, "size_bytes": file.stat().st_size}
                    peers.append(Peer(row, file, PEER_COMMAND, batch=1 if network.trained else None))
        show("peers, other networks", number + 1, len(networks), network.name)
    return peers


def peers_command() -> None:
    """Compare, write the results file, print the verdict."""
    parser = argparse.ArgumentParser(prog="python benchmarks/peers", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="finished run")
    parser.add_argument("--data", required=True, metavar="DATA", help="data set of the run")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="results file (JSON)")
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="run of the network baseline; default: untrained")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs-per-round", type=int, default=100)
    arguments = parser.parse_args()
    if find_spec("nncf") is None:
        raise RuntimeUnavailable("NNCF is not installed; pip install --constraint constraints.txt nncf")
    plan = BenchPlan(rounds=arguments.rounds, runs_per_round=arguments.runs_per_round, warmup_runs=WARMUP_RUNS)
    with progress.on_terminal() as show:
        comparison = compare(arguments.run, data.load(arguments.data), plan, show, baseline=arguments.baseline)
    write_record(
        arguments.out,
        kind="peers",
        command="python benchmarks/peers RUN --data DATA --out F"
        + (" --baseline BASELINE" if arguments.baseline else "")
        + changed_options(parser, arguments, "rounds", "runs-per-round"),
        about="Int8 files of a run against other quantisers of the same fp32 network, and against other networks.",
        **comparison,
    )
    sys.stdout.write("".join(f"{line}\n" for line in comparison["verdict"]["words"]))


if __name__ == "__main__":
    run_script(peers_command)
