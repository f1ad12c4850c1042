"""Compare a run's int8 files with other quantisers': ``python benchmarks/peers.py RUN --data DATA --out F``.

RUN is a finished run with the recipes fp32, int8 and int8ptq. Every peer quantises that run's own fp32 network with
the calibration patches that int8ptq sees. All files take raw uint8 pixels, and all are timed in one run: one thread,
batch 1, rounds interleaved in random order, each turn in a fresh child process, because the same file differs by some
per cent from process to process. NNCF is no part of histoedge's environment: ``pip install nncf`` before.
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import data, edge, files, metrics, progress
from histoedge.bench import environment
from histoedge.cell import EDGE_COMMAND, SOURCE, Cell, Request, serve
from histoedge.config import BenchPlan, CompressConfig
from histoedge.data import Split
from histoedge.edge import litert, openvino, ort
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError, HistoedgeError, ModelError, RuntimeUnavailable
from histoedge.lab import backend, batches, checkpoint, to_tflite
from histoedge.lab import network as networks
from histoedge.progress import Progress
from histoedge.report.tables import interval

FORMAT, KIND = 1, "peers"
RECIPES = ("fp32", "int8", "int8ptq")
OURS = (("tflite", "litert"), ("onnx", "onnxruntime"), ("onnx", "openvino"))
PEER_COMMAND = (sys.executable, __file__, "--serve")
TIMED_PATCHES = 256  # as histoedge bench
WARMUP_RUNS = 200  # every turn starts cold
RULE = (
    "Quantisation-aware training beats int8ptq where the 95 % interval of its AUC less int8ptq's lies above 0 on valid "
    "and on test, or lies below 0 on neither while both its rms logit difference and its decision flips are smaller "
    "on both."
)

Row = dict[str, Any]


# -------------------------------------------------------------------------------------------------- the peers


def quantize_static(run: Path, patches: np.ndarray, folder: Path) -> Path:
    """ONNX Runtime: QDQ, per channel, min-max, uint8 activations and int8 weights, preprocessed as its manual asks."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.array_split(patches, max(1, len(patches) // 32)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {to_tflite.INPUT: batch}

    prepared, made = folder / "prepared.onnx", folder / "model.onnx"
    quant_pre_process(str(run / "models/fp32.onnx"), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(made),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    prepared.unlink()
    return made


def tflite_converter(run: Path, patches: np.ndarray, folder: Path) -> Path:
    """TensorFlow: full integer kernels for the folded network, uint8 input, float32 output."""
    if patches.max() < 255:
        raise DataError("no calibration patch has a pixel of 255: the converter's uint8 input would not be raw pixels")
    tf, source = backend.tensorflow(), checkpoint.read(run / SOURCE)
    model = networks.build(backend.tf_keras(), source.network, folded=True)
    networks.set_weights(model, source.folded, where=SOURCE)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([patch[None].astype(np.float32) / 255.0] for patch in patches)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8  # its range is 0..1, so raw pixels are the quantised input
    converter.inference_output_type = tf.float32
    made = folder / "model.tflite"
    made.write_bytes(converter.convert())
    return made


def nncf_quantize(run: Path, patches: np.ndarray, folder: Path) -> Path:
    """NNCF: its default settings on the OpenVINO model read from the ONNX file."""
    os.environ["NNCF_CI"] = "1"  # without it NNCF reports its use to its makers (nncf/telemetry/wrapper.py)
    import nncf
    from openvino import Core, save_model

    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset([patch[None] for patch in patches])
    quantised = nncf.quantize(Core().read_model(run / "models/fp32.onnx"), calibration, subset_size=len(patches))
    made = folder / "model.xml"
    save_model(quantised, made, compress_to_fp16=False)
    return made


@dataclass(frozen=True)
class Peer:
    """A quantiser: its distribution, the runtime its files are made for, and what makes one in an empty folder."""

    package: str
    runtime: str
    make: Callable[[Path, np.ndarray, Path], Path]


PEERS = {
    "quantize_static": Peer("onnxruntime-gpu", "onnxruntime", quantize_static),
    "TFLite converter": Peer("tensorflow", "litert", tflite_converter),
    "NNCF": Peer("nncf", "openvino", nncf_quantize),
}


def open_peer(request: Request) -> edge.Runner:
    """The runner of a peer's file, which has no manifest; settings as for our own files."""
    path, threads = Path(request["model"]), request["threads"]
    if path.suffix == ".tflite":
        return litert.open_model(path.read_bytes(), threads=threads)
    if path.suffix == ".onnx":
        return ort.open_model(path.read_bytes(), threads=threads)
    return openvino.open_model(path, threads=threads)  # a path: OpenVINO's own format is two files


# --------------------------------------------------------------------------------------------- the measurement


@dataclass
class Contender:
    """One file on one runtime, and the child that opens it."""

    row: Row
    model: Path
    command: Sequence[str]
    rounds_ms: list[np.ndarray] = field(default_factory=list)
    logits: dict[str, np.ndarray] = field(default_factory=dict)

    @contextlib.contextmanager
    def opened(self, plan: BenchPlan) -> Iterator[Cell]:
        """A fresh child process that has the file open."""
        with Cell(self.command, threads=plan.threads[0], timeout_s=plan.timeout_s) as cell:
            loaded = cell.load(self.model, runtime=self.row["runtime"], batch=plan.batch[0])
            self.row |= {name: loaded[name] for name in ("runtime_version", "kernels")}
            yield cell


def compare(
    run: Path, splits: Mapping[str, Split], plan: BenchPlan, show: Progress
) -> tuple[list[Row], dict[str, Any]]:
    """The rows and the verdict.

    Raises:
        HistoedgeError: a file of the run is missing or of another source, or a file cannot be opened or answers badly.
    """
    check(run, splits)
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        contenders = [*_ours(run), *_quantised(run, splits["train"], Path(folder), show)]
        for number, one in enumerate(contenders, start=1):
            with one.opened(plan) as cell:
                one.logits = {name: cell.predict(splits[name].patches).reshape(-1) for name in ("valid", "test")}
            show("peers, files answered", number, len(contenders), _named(one.row))
        _time(contenders, splits["test"], plan, Path(folder) / "timed.npy", show)
    return judge(contenders, {name: splits[name].labels for name in ("valid", "test")})


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


def _ours(run: Path) -> list[Contender]:
    found = []
    for format_, runtime in OURS:
        for recipe in RECIPES:
            model = run / "models" / f"{recipe}.{format_}"
            row = {"name": recipe, "peer": False, "made_by": "histoedge", "file": model.name, "runtime": runtime}
            found.append(Contender(row | {"size_bytes": model.stat().st_size}, model, EDGE_COMMAND))
    return found


def _quantised(run: Path, train: Split, folder: Path, show: Progress) -> list[Contender]:
    config = CompressConfig()
    chosen = np.sort(batches.order(len(train.labels), seed=config.seed, epoch=0)[: config.calibration_patches])
    patches = train.patches[chosen]  # those of the compress stage
    found = []
    for name, peer in PEERS.items():
        place = folder / peer.package
        place.mkdir()
        with backend.quiet(), contextlib.redirect_stdout(sys.stderr):
            model = peer.make(run, patches, place)
        size = sum(part.stat().st_size for part in place.iterdir())  # OpenVINO's format is two files
        row = {"name": name, "peer": True, "made_by": f"{peer.package} {version(peer.package)}", "file": model.name}
        found.append(Contender(row | {"runtime": peer.runtime, "size_bytes": size}, model, PEER_COMMAND))
        show("peers, quantised", len(found), len(PEERS), name)
    return found


def _time(contenders: Sequence[Contender], split: Split, plan: BenchPlan, file: Path, show: Progress) -> None:
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, TIMED_PATCHES).astype(int))
    np.save(file, split.patches[chosen])
    random = np.random.default_rng(plan.seed)
    for number in range(plan.rounds):
        for index in random.permutation(len(contenders)):
            one, start = contenders[index], number * plan.runs_per_round
            with one.opened(plan) as cell:
                times = cell.time(file, n=plan.runs_per_round, start=start, warmup=plan.warmup_runs)
            one.rounds_ms.append(times.ms)
        show("peers, rounds", number + 1, plan.rounds)


def _named(row: Row) -> str:
    return f"{row['name']} @ {row['runtime']}"


# ------------------------------------------------------------------------------------------------- the judgement


def judge(contenders: Sequence[Contender], labels: Mapping[str, np.ndarray]) -> tuple[list[Row], dict[str, Any]]:
    """Every figure of every row, and what they say together."""
    at = {(one.row["name"], one.row["runtime"]): one for one in contenders}
    peers = [one for one in contenders if one.row["peer"]]
    for one in contenders:
        p50 = metrics.median(np.stack(one.rounds_ms))
        one.row |= {"p50_us": 1e3 * p50.value, "p50_us_lo": 1e3 * p50.lo, "p50_us_hi": 1e3 * p50.hi}
        rivals = [peer for peer in peers if peer.row["runtime"] == one.row["runtime"]]
        rival = min(rivals, key=lambda peer: float(np.median(peer.rounds_ms)))
        ratio = metrics.ratio_of_medians(np.stack(one.rounds_ms), np.stack(rival.rounds_ms))
        one.row |= {"fastest_peer": rival.row["name"], "p50_ratio": ratio.value}
        one.row |= {"p50_ratio_lo": ratio.lo, "p50_ratio_hi": ratio.hi}
        fp32 = at["fp32", one.row["runtime"]]
        for name, truth in labels.items():
            one.row[name] = _accuracy(truth, one.logits[name], None if one is fp32 else fp32.logits[name])
    best = max(peers, key=lambda one: float(one.row["valid"]["auc"]))
    runtime = best.row["runtime"]
    trained, calibrated = at["int8", runtime], at["int8ptq", runtime]
    gains = {name: difference(truth, trained.logits[name], calibrated.logits[name]) for name, truth in labels.items()}
    verdict: dict[str, Any] = {
        "best_peer": {"name": best.row["name"], "runtime": runtime},
        "int8_less_best_peer": difference(labels["test"], trained.logits["test"], best.logits["test"]),
        "int8_less_int8ptq": gains,
        "training_beats_int8ptq": beats(gains, trained.row, calibrated.row),
        "rule": RULE,
    }
    rows = [one.row for one in contenders]
    speeds = [row for row in rows if row["name"] == "int8"]
    verdict["words"] = [
        best_peer_words(best.row, verdict["int8_less_best_peer"]),
        *(speed_words(row) for row in speeds),
        training_words(gains, trained.row, calibrated.row),
    ]
    return rows, verdict


def _accuracy(labels: np.ndarray, logits: np.ndarray, fp32: np.ndarray | None) -> Row:
    area = metrics.delong(labels, logits)
    found: Row = {"n_patches": len(labels), "auc": area.value, "auc_lo": area.lo, "auc_hi": area.hi}
    if fp32 is not None:
        found |= difference(labels, logits, fp32)
        found["rms_logit"] = float(np.sqrt(np.mean((logits.astype(np.float64) - fp32) ** 2)))
        found["flips"] = metrics.flips(logits, fp32)
    return found


def difference(labels: np.ndarray, logits: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The paired difference of two AUCs with its 95 % interval and its standard error."""
    found = metrics.delong_difference(labels, logits, reference)
    bounds = {"d_auc_lo": found.lo, "d_auc_hi": found.hi}
    return {"d_auc": found.value, **bounds, "d_auc_se": found.standard_error}


def beats(gains: Mapping[str, Mapping[str, float]], trained: Row, calibrated: Row) -> bool:
    """``RULE``: ``gains`` holds ``difference`` of trained and calibrated by split."""
    if all(gain["d_auc_lo"] > 0 for gain in gains.values()):
        return True
    closer = all(trained[name][key] < calibrated[name][key] for name in gains for key in ("rms_logit", "flips"))
    return closer and all(gain["d_auc_hi"] >= 0 for gain in gains.values())


def best_peer_words(best: Row, gain: Mapping[str, float]) -> str:
    """How int8 stands to the peer with the highest AUC on valid, in a sentence."""
    standing = "not told apart from"
    if gain["d_auc_lo"] > 0:
        standing = "better than"
    if gain["d_auc_hi"] < 0:
        standing = "worse than"
    return f"On test, int8 is {standing} {_named(best)}, the best peer on valid: AUC {_shown(gain)}."


def speed_words(row: Row) -> str:
    """How fast an int8 file is beside the fastest peer of its runtime, in a sentence."""
    standing = "about as fast as"
    if row["p50_ratio_hi"] < 1:
        standing = "faster than"
    if row["p50_ratio_lo"] > 1:
        standing = "slower than"
    ratio = interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=3)
    return f"On {row['runtime']}, int8 is {standing} {row['fastest_peer']}: {ratio} of its p50."


def training_words(gains: Mapping[str, Mapping[str, float]], trained: Row, calibrated: Row) -> str:
    """Whether quantisation-aware training earns its place beside calibration alone, in a sentence."""
    verb = "beats" if beats(gains, trained, calibrated) else "does not beat"
    told = [
        f"on {name} AUC {_shown(gain)}, "
        f"rms logit difference to fp32 {trained[name]['rms_logit']:.3f} against {calibrated[name]['rms_logit']:.3f}, "
        f"decision flips {trained[name]['flips']} against {calibrated[name]['flips']}"
        for name, gain in gains.items()
    ]
    return f"Quantisation-aware training {verb} int8ptq here ({trained['runtime']}): {'; '.join(told)}."


def _shown(gain: Mapping[str, float]) -> str:
    bounded = interval(gain["d_auc"], gain["d_auc_lo"], gain["d_auc_hi"], sign="+")
    return f"{bounded}, standard error {gain['d_auc_se']:.4f}"


def main() -> None:
    """Compare, write the results file, print the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True, metavar="DATA", help="the data the run was trained on")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="results file, JSON")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs-per-round", type=int, default=100)
    given = parser.parse_args()
    if find_spec("nncf") is None:
        raise RuntimeUnavailable("NNCF is not installed; pip install --constraint constraints.txt nncf")
    plan = BenchPlan(rounds=given.rounds, runs_per_round=given.runs_per_round, warmup_runs=WARMUP_RUNS)
    with progress.on_terminal() as show:
        rows, verdict = compare(given.run, data.load(given.data), plan, show)
    command = "python benchmarks/peers.py RUN --data DATA --out F"
    if (plan.rounds, plan.runs_per_round) != (parser.get_default("rounds"), parser.get_default("runs_per_round")):
        command += f" --rounds {plan.rounds} --runs-per-round {plan.runs_per_round}"
    document = {"format": FORMAT, "kind": KIND, "command": command, "environment": environment.describe()}
    files.write_json(given.out, {**document, "rows": rows, "verdict": verdict})
    sys.stdout.write("\n".join([*verdict["words"], str(given.out)]) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:  # the child's side
        serve(open_peer)
        sys.exit()
    try:
        main()
    except HistoedgeError as error:
        sys.exit(str(error))
