"""Figures of a comparison and the conclusions from them, as numbers and sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from measurement import SPLITS, Peer, named
from record import Row

from histoedge import metrics
from histoedge.reporting.tables import interval

RULE = (
    "Quantisation-aware training beats int8ptq if the 95 % interval of its AUC minus int8ptq's is above 0 on valid and "
    "on test; or if the interval is below 0 on neither split, and both its rms logit difference and its decision flips "
    "are smaller on both splits."
)


def judge(contenders: Sequence[Peer], labels: Mapping[str, np.ndarray]) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows with all figures, and the verdict."""
    by_key = {(each.row["name"], each.row["runtime"]): each for each in contenders}
    peers = [each for each in contenders if each.row["peer"]]
    for contender in contenders:
        contender.row |= _p50(contender)
        rivals = [peer for peer in peers if peer.row["runtime"] == contender.row["runtime"]]
        rival = min(rivals, key=lambda peer: float(np.median(peer.rounds_ms)))
        contender.row |= {"fastest_peer": rival.row["name"], **_ratio(contender, rival)}
        fp32 = by_key["fp32", contender.row["runtime"]]
        for name, truth in labels.items():
            reference = None if contender is fp32 else fp32.logits[name]
            contender.row[name] = _accuracy(truth, contender.logits[name], reference)
    best = max(peers, key=lambda each: float(each.row["valid"]["auc"]))
    runtime = best.row["runtime"]
    trained, calibrated = by_key["int8", runtime], by_key["int8ptq", runtime]
    gains = {name: difference(truth, trained.logits[name], calibrated.logits[name]) for name, truth in labels.items()}
    verdict: dict[str, Any] = {
        "best_peer": {"name": best.row["name"], "runtime": runtime},
        "int8_less_best_peer": difference(labels["test"], trained.logits["test"], best.logits["test"]),
        "int8_less_int8ptq": gains,
        "training_beats_int8ptq": beats(gains, trained.row, calibrated.row),
        "rule": RULE,
    }
    rows = [each.row for each in contenders]
    speeds = [row for row in rows if row["name"] == "int8"]
    verdict["words"] = [
        best_peer_words(best.row, verdict["int8_less_best_peer"]),
        *(speed_words(row) for row in speeds),
        training_words(gains, trained.row, calibrated.row),
    ]
    return rows, verdict


def judge_others(others: Sequence[Peer], ours: Sequence[Peer], labels: Mapping[str, np.ndarray]) -> list[Row]:
    """Return the rows of other networks; ``p50_ratio`` is against our int8 file on the same runtime."""
    int8 = {each.row["runtime"]: each for each in ours if each.row["name"] == "int8"}
    for other in others:
        other.row |= {**_p50(other), **_ratio(other, int8[other.row["runtime"]])}
        for name in SPLITS:
            other.row[name] = _accuracy(labels[name], other.logits[name], None) if other.logits else None
    return [other.row for other in others]


def _p50(peer: Peer) -> Row:
    p50 = metrics.median(np.stack(peer.rounds_ms))
    return {"p50_us": 1e3 * p50.value, "p50_us_lo": 1e3 * p50.lo, "p50_us_hi": 1e3 * p50.hi}


def _ratio(peer: Peer, other: Peer) -> Row:
    ratio = metrics.ratio_of_medians(np.stack(peer.rounds_ms), np.stack(other.rounds_ms))
    return {"p50_ratio": ratio.value, "p50_ratio_lo": ratio.lo, "p50_ratio_hi": ratio.hi}


def _accuracy(labels: np.ndarray, logits: np.ndarray, fp32: np.ndarray | None) -> Row:
    area = metrics.delong(labels, logits)
    figures: Row = {"n_patches": len(labels), "auc": area.value, "auc_lo": area.lo, "auc_hi": area.hi}
    if fp32 is not None:
        figures |= difference(labels, logits, fp32)
        figures["rms_logit"] = float(np.sqrt(np.mean((logits.astype(np.float64) - fp32) ** 2)))
        figures["flips"] = metrics.flips(logits, fp32)
    return figures


def difference(labels: np.ndarray, logits: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the paired difference of two AUCs with its 95 % interval and its standard error."""
    gain = metrics.delong_difference(labels, logits, reference)
    return {"d_auc": gain.value, "d_auc_lo": gain.lo, "d_auc_hi": gain.hi, "d_auc_se": gain.standard_error}


def beats(gains: Mapping[str, Mapping[str, float]], trained: Row, calibrated: Row) -> bool:
    """Apply ``RULE``; ``gains`` contains the ``difference`` of trained and calibrated by split."""
    if all(gain["d_auc_lo"] > 0 for gain in gains.values()):
        return True
    closer = all(trained[name][key] < calibrated[name][key] for name in gains for key in ("rms_logit", "flips"))
    return closer and all(gain["d_auc_hi"] >= 0 for gain in gains.values())


def best_peer_words(best: Row, gain: Mapping[str, float]) -> str:
    """Compare int8 with the peer that has the highest AUC on valid, in a sentence."""
    standing = "not distinguishable from"
    if gain["d_auc_lo"] > 0:
        standing = "better than"
    if gain["d_auc_hi"] < 0:
        standing = "worse than"
    return f"On test, int8 is {standing} {named(best)}, the best peer on valid: AUC {_shown(gain)}."


def speed_words(row: Row) -> str:
    """Compare the speed of an int8 file with that of the fastest peer on its runtime, in a sentence."""
    standing = "about as fast as"
    if row["p50_ratio_hi"] < 1:
        standing = "faster than"
    if row["p50_ratio_lo"] > 1:
        standing = "slower than"
    ratio = interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=3)
    return f"On {row['runtime']}, int8 is {standing} {row['fastest_peer']}: {ratio} of its p50."


def training_words(gains: Mapping[str, Mapping[str, float]], trained: Row, calibrated: Row) -> str:
    """State whether quantisation-aware training beats calibration without training, in a sentence."""
    verb = "beats" if beats(gains, trained, calibrated) else "does not beat"
    by_split = [
        f"on {name} AUC {_shown(gain)}, "
        f"rms logit difference to fp32 {trained[name]['rms_logit']:.3f} against {calibrated[name]['rms_logit']:.3f}, "
        f"decision flips {trained[name]['flips']} against {calibrated[name]['flips']}"
        for name, gain in gains.items()
    ]
    return f"Quantisation-aware training {verb} int8ptq here ({trained['runtime']}): {'; '.join(by_split)}."


def _shown(gain: Mapping[str, float]) -> str:
    bounded = interval(gain["d_auc"], gain["d_auc_lo"], gain["d_auc_hi"], sign="+")
    return f"{bounded}, standard error {gain['d_auc_se']:.4f}"
