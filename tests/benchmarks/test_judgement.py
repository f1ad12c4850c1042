"""The verdict of benchmarks/peers follows its figures."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

Script = Callable[[str], ModuleType]
Section = Callable[[dict[str, Any]], str]


@pytest.fixture
def peers(script: Script) -> ModuleType:
    return script("judgement")


def row(rms_logit: float, flips: int) -> dict[str, Any]:
    return {"runtime": "litert"} | {name: {"rms_logit": rms_logit, "flips": flips} for name in ("valid", "test")}


def gain(lo: float, hi: float) -> dict[str, float]:
    return {"d_auc": (lo + hi) / 2, "d_auc_lo": lo, "d_auc_hi": hi, "d_auc_se": (hi - lo) / 3.92}


@pytest.mark.parametrize(
    ("valid", "test", "trained", "verb"),
    [
        (gain(0.001, 0.003), gain(0.002, 0.004), row(0.20, 20), "beats"),  # a higher AUC on both
        (gain(0.001, 0.003), gain(-0.001, 0.004), row(0.20, 20), "does not beat"),  # on valid alone
        (gain(-0.001, 0.001), gain(-0.001, 0.001), row(0.05, 8), "beats"),  # as good, and closer to fp32
        (gain(-0.001, 0.001), gain(-0.001, 0.001), row(0.05, 10), "does not beat"),  # as many flips
        (gain(-0.001, 0.001), gain(-0.003, -0.001), row(0.05, 8), "does not beat"),  # closer, and worse
    ],
)
def test_the_words_follow_the_figures(
    peers: ModuleType, valid: dict[str, float], test: dict[str, float], trained: dict[str, Any], verb: str
) -> None:
    words = peers.training_words({"valid": valid, "test": test}, trained, row(0.10, 10))
    assert words.startswith(f"Quantisation-aware training {verb} int8ptq here")
    assert f"{trained['test']['flips']} against 10" in words


def test_the_best_peer_is_chosen_on_valid_and_the_table_lists_it(peers: ModuleType, section: Section) -> None:
    random = np.random.default_rng(0)
    labels = {"valid": np.arange(40) % 2, "test": np.arange(60) % 2}
    noise = {name: random.normal(0, 1, len(truth)) for name, truth in labels.items()}

    def contender(name: str, runtime: str, ms: float, signal: float, *, peer: bool = False) -> Any:
        described = {"name": name, "runtime": runtime, "peer": peer, "made_by": "maker 1.0", "file": f"{name}.onnx"}
        described |= {"runtime_version": "1.0", "kernels": "mlas", "size_bytes": 1000}
        logits = {split: truth * signal + noise[split] for split, truth in labels.items()}
        return SimpleNamespace(row=described, rounds_ms=[np.full(3, ms)] * 2, logits=logits)

    contenders = [contender(name, "onnxruntime", 2.0, 1.0) for name in ("fp32", "int8", "int8ptq")]
    contenders += [contender("good", "onnxruntime", 4.0, 2.0, peer=True)]
    contenders += [contender("quick", "onnxruntime", 1.0, 0.5, peer=True)]
    rows, verdict = peers.judge(contenders, labels)
    assert verdict["best_peer"]["name"] == "good"
    assert verdict["int8_less_best_peer"]["d_auc"] < 0
    assert rows[1]["p50_ratio"] == 2.0
    assert "slower than quick: 2.000 [2.000, 2.000]" in verdict["words"][1]
    assert "does not beat" in verdict["words"][-1]
    text = section({"kind": "peers", "command": "python benchmarks/peers", "rows": rows, "verdict": verdict})
    assert all(word in text for word in verdict["words"])
    assert text.count("maker 1.0") == 2
    networks = [contender(name, "onnxruntime", 8.0, 1.0) for name in ("theirs", "trained")]
    for network in networks:
        network.row |= {"params": 1000, "macs": 2_000_000, "trained": network.row["name"] == "trained"}
        network.logits = network.logits if network.row["trained"] else {}
    others = peers.judge_others(networks, contenders, labels)
    assert [row["p50_ratio"] for row in others] == [4.0, 4.0]  # of our int8
    assert others[0]["test"] is None
    rows[-1] |= {"settings": "per tensor", "candidates": [{"settings": "per tensor", "auc_valid": 0.75}]}
    document = {"kind": "peers", "command": "python benchmarks/peers", "rows": rows, "verdict": verdict}
    text = section({**document, "networks": others})
    assert "| theirs, untrained | theirs.onnx | onnxruntime 1.0 | 1,000 | 2.0 | 1.0 |" in text
    assert "| trained | trained.onnx | onnxruntime 1.0 | 1,000 | 2.0 | 1.0 |" in text
    assert "quick (maker 1.0; per tensor)" in text
    assert "quick: the settings with the highest AUC on valid, of per tensor: 0.7500." in text
