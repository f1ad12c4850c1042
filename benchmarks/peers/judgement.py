"""What the figures of a comparison say, in numbers and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from measurement import SPLITS, Peer, Row, named

from histoedge import metrics
from histoedge.reporting.tables import interval

RULE = (
    "Quantisation-aware training beats int8ptq where the 95 % interval of its AUC less int8ptq's lies above 0 on valid "
    "and on test, or lies below 0 on neither while both its rms logit difference and its decision flips are smaller "
    "on both."
)


def judge(contenders: Sequence[Peer], labels: Mapping[str, np.ndarray]) -> tuple[list[Row], dict[str, Any]]:
    """Every figure of every row, and what they say together."""
    at = {(one.row["name"], one.row["runtime"]): one for one in contenders}
    peers = [one for one in contenders if one.row["peer"]]
    for one in contenders:
        one.row |= _p50(one)
        rivals = [peer for peer in peers if peer.row["runtime"] == one.row["runtime"]]
        rival = min(rivals, key=lambda peer: float(np.median(peer.rounds_ms)))
        one.row |= {"fastest_peer": rival.row["name"], **_ratio(one, rival)}
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


def judge_others(others: Sequence[Peer], ours: Sequence[Peer], labels: Mapping[str, np.ndarray]) -> list[Row]:
    """Every figure of the other networks' files; ``p50_ratio`` is their time over our int8 file's on that runtime."""
    int8 = {one.row["runtime"]: one for one in ours if one.row["name"] == "int8"}
    for one in others:
        one.row |= {**_p50(one), **_ratio(one, int8[one.row["runtime"]])}
        for name in SPLITS:
            one.row[name] = _accuracy(labels[name], one.logits[name], None) if one.logits else None
    return [one.row for one in others]


def _p50(one: Peer) -> Row:
    found = metrics.median(np.stack(one.rounds_ms))
    return {"p50_us": 1e3 * found.value, "p50_us_lo": 1e3 * found.lo, "p50_us_hi": 1e3 * found.hi}


def _ratio(one: Peer, other: Peer) -> Row:
    found = metrics.ratio_of_medians(np.stack(one.rounds_ms), np.stack(other.rounds_ms))
    return {"p50_ratio": found.value, "p50_ratio_lo": found.lo, "p50_ratio_hi": found.hi}


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
    return f"On test, int8 is {standing} {named(best)}, the best peer on valid: AUC {_shown(gain)}."


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
