"""Compare a run's int8 files with others: ``python benchmarks/peers RUN --data DATA --out F [--baseline RUN]``.

RUN is a finished run with the recipes fp32, int8 and int8ptq. Every other quantiser quantises that run's own fp32
network with the calibration patches that int8ptq sees. Other networks stand beside them: MobileNetV2 0.35 and ResNet-18
without training, for their latency and size alone, and ``baseline``, trained where its run is given. All files take raw
uint8 pixels, and all are timed in one run: one thread, batch 1, rounds interleaved in random order, each turn in a
fresh child process, because the same file differs by some per cent from process to process. NNCF is no part of
histoedge's environment: ``pip install nncf`` before.
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

import judgement
import measurement
import numpy as np
import others
from measurement import PEER_COMMAND, SPLITS, Peer
from quantisers import PEERS, QuantiserJob

from histoedge import data, files, progress
from histoedge.benchmark import environment
from histoedge.cell import EDGE_COMMAND, SOURCE
from histoedge.config import BenchPlan, CompressConfig
from histoedge.data import Split
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, HistoedgeError, ModelError, RuntimeUnavailable
from histoedge.lab import backend, batches, checkpoint
from histoedge.progress import Progress

FORMAT, KIND = 1, "peers"
RECIPES = ("fp32", "int8", "int8ptq")
PLACES = (("tflite", "litert"), ("onnx", "onnxruntime"), ("onnx", "openvino"))
WARMUP_RUNS = 200  # every turn starts cold


def compare(
    run: Path, splits: Mapping[str, Split], plan: BenchPlan, show: Progress, *, baseline: Path | None = None
) -> dict[str, Any]:
    """``rows`` of the quantisers, ``networks`` of the other networks, and the ``verdict``.

    Raises:
        HistoedgeError: a file of the run is missing or of another source, or a file cannot be opened or answers badly.
    """
    check(run, splits)
    job = QuantiserJob(run, calibration_patches(splits["train"]), splits["valid"])
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        quantised = [*_ours(run), *_quantised(job, Path(folder), show)]
        beside = _others(baseline, job.patches, Path(folder), show)
        measurement.answer([*quantised, *beside], splits, plan, show)
        measurement.time([*quantised, *beside], splits["test"], plan, Path(folder) / "timed.npy", show)
    labels = {name: np.asarray(splits[name].labels) for name in SPLITS}
    rows, verdict = judgement.judge(quantised, labels)
    return {"rows": rows, "networks": judgement.judge_others(beside, quantised, labels), "verdict": verdict}


def check(run: Path, splits: Mapping[str, Split]) -> None:
    """Raise what ``compare`` names when a file is missing, of another source network, or the data is not the run's."""
    source = checkpoint.read(run / SOURCE)
    sha256 = files.sha256(run / SOURCE)
    for recipe in RECIPES:
        for format_ in ("tflite", "onnx"):
            model = run / "models" / f"{recipe}.{format_}"
            if manifests.read(model).parents["source"] != sha256:
                raise ModelError(f"{model}: not made from {run / SOURCE}; export it again")
    for name in ("train", "valid"):
        if splits[name].content_hash != source.inputs["data"][name]:
            raise ConfigError(f"{run}: trained on another {name} split than this data holds; give the run's own --data")


def calibration_patches(train: Split) -> np.ndarray:
    """Those of the compress stage, uint8 (N, 96, 96, 3)."""
    config = CompressConfig()
    chosen = np.sort(batches.order(len(train.labels), seed=config.seed, epoch=0)[: config.calibration_patches])
    return np.asarray(train.patches[chosen])


def _ours(run: Path) -> list[Peer]:
    found = []
    for format_, runtime in PLACES:
        for recipe in RECIPES:
            model = run / "models" / f"{recipe}.{format_}"
            row = {"name": recipe, "peer": False, "made_by": "histoedge", "file": model.name, "runtime": runtime}
            found.append(Peer(row | {"size_bytes": model.stat().st_size}, model, EDGE_COMMAND))
    return found


def _quantised(job: QuantiserJob, folder: Path, show: Progress) -> list[Peer]:
    found = []
    for name, peer in PEERS.items():
        place = folder / peer.package
        place.mkdir()
        with backend.quiet(), contextlib.redirect_stdout(sys.stderr):
            made = peer.make(job, place)
        size = sum(part.stat().st_size for part in place.iterdir())  # OpenVINO's format is two files
        row = {"name": name, "peer": True, "made_by": f"{peer.package} {version(peer.package)}"}
        row |= {"file": made.model.name, "runtime": peer.runtime, "size_bytes": size}
        row |= {"settings": made.settings, "candidates": list(made.candidates)}
        found.append(Peer(row, made.model, PEER_COMMAND))
        show("peers, quantised", len(found), len(PEERS), name)
    return found


def _others(baseline: Path | None, patches: np.ndarray, folder: Path, show: Progress) -> list[Peer]:
    found = []
    chosen = others.all_of_them(baseline)
    for number, other in enumerate(chosen):
        place = folder / f"other-{number}"
        place.mkdir()
        with backend.quiet(), contextlib.redirect_stdout(sys.stderr):
            model = other.build()
            made = others.export_others(model, patches, place)
        told = {"name": other.name, "trained": other.trained, "made_by": f"tensorflow {version('tensorflow')}"}
        told |= {"params": others.params(model), "macs": others.macs(model)}
        for file in made:
            for format_, runtime in PLACES:
                if file.suffix == f".{format_}":
                    row = {**told, "file": file.name, "runtime": runtime, "size_bytes": file.stat().st_size}
                    found.append(Peer(row, file, PEER_COMMAND, batch=1 if other.trained else None))
        show("peers, other networks", number + 1, len(chosen), other.name)
    return found


def peers_command() -> None:
    """Compare, write the results file, print the verdict."""
    parser = argparse.ArgumentParser(prog="python benchmarks/peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True, metavar="DATA", help="the data the run was trained on")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="results file, JSON")
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="a run of the network baseline; else untrained")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs-per-round", type=int, default=100)
    given = parser.parse_args()
    if find_spec("nncf") is None:
        raise RuntimeUnavailable("NNCF is not installed; pip install --constraint constraints.txt nncf")
    plan = BenchPlan(rounds=given.rounds, runs_per_round=given.runs_per_round, warmup_runs=WARMUP_RUNS)
    with progress.on_terminal() as show:
        found = compare(given.run, data.load(given.data), plan, show, baseline=given.baseline)
    command = "python benchmarks/peers RUN --data DATA --out F" + (" --baseline BASELINE" if given.baseline else "")
    if (plan.rounds, plan.runs_per_round) != (parser.get_default("rounds"), parser.get_default("runs_per_round")):
        command += f" --rounds {plan.rounds} --runs-per-round {plan.runs_per_round}"
    document = {"format": FORMAT, "kind": KIND, "command": command, "environment": environment.this_machine()}
    files.write_json(given.out, {**document, **found})
    sys.stdout.write("\n".join([*found["verdict"]["words"], str(given.out)]) + "\n")


if __name__ == "__main__":
    try:
        peers_command()
    except HistoedgeError as error:
        sys.exit(str(error))
