"""The section of a comparison with peers (``benchmarks/peers``)."""

from typing import Any

from committed import ResultsFile
from markdown_table import markdown_table
from record import Row

from histoedge.reporting.tables import interval, kilobytes

SPLITS = ("valid", "test")


def peers_parts(file: ResultsFile) -> list[str]:
    """Return the table of quantisers, the table of other networks, and the notes."""
    rows, verdict = file.document["rows"], file.document["verdict"]
    head = ["quantised by", "file", "runtime", "kernels", "size kB", "p50 us", "p50 / fastest peer"]
    for name in SPLITS:
        head += [f"AUC {name}", f"dAUC {name}", "s.e.", "rms logit", "flips"]
    table = markdown_table(head, [_quantiser_cells(row) for row in rows], text=head[:4])
    counts = " and ".join(f"{rows[0][name]['n_patches']:,} patches of `{name}`" for name in SPLITS)
    notes = [
        *verdict["words"],
        verdict["rule"],
        f"1 thread, batch 1, interleaved rounds, each turn in a fresh process; {counts}. 95 % intervals: DeLong's for "
        "AUC, paired for dAUC. dAUC with its standard error (s.e.), rms logit difference and decision flips at logit 0 "
        "are against fp32 on the same runtime. Peers calibrate with the patches of int8ptq. All files accept raw uint8 "
        "pixels.",
        *(_candidates(row) for row in rows if row.get("candidates")),
    ]
    networks = _networks_parts(file.document.get("networks", []))
    return [table, *networks, "\n".join(f"- {note}" for note in notes) + "\n"]


def _quantiser_cells(row: Row) -> list[str]:
    settings = f"; {row['settings']}" if row.get("settings") else ""
    maker = f"{row['name']} ({row['made_by']}{settings})" if row["peer"] else f"histoedge, {row['name']}"
    cells = [maker, row["file"], f"{row['runtime']} {row['runtime_version']}", row["kernels"]]
    cells.append(f"{row['size_bytes'] / 1000:,.0f}")
    cells.append(interval(row["p50_us"], row["p50_us_lo"], row["p50_us_hi"], digits=1))
    cells.append(interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=3))
    for name in SPLITS:
        cells += _accuracy_cells(row[name])
    return cells


def _accuracy_cells(figures: dict[str, Any]) -> list[str]:
    cells = [interval(figures["auc"], figures["auc_lo"], figures["auc_hi"])]
    if "d_auc" not in figures:  # fp32, the reference of the others
        return [*cells, "", "", "", ""]
    cells.append(interval(figures["d_auc"], figures["d_auc_lo"], figures["d_auc_hi"], sign="+"))
    return [*cells, f"{figures['d_auc_se']:.4f}", f"{figures['rms_logit']:.3f}", str(figures["flips"])]


def _networks_parts(rows: list[Row]) -> list[str]:
    """Return the table of other networks; empty where none was measured."""
    if not rows:
        return []
    head = ["other network", "file", "runtime", "params", "MMAC", "size kB", "p50 us", "p50 / our int8", "AUC on test"]
    lines = []
    for row in rows:
        cells = [row["name"] + ("" if row["trained"] else ", untrained"), row["file"]]
        cells += [f"{row['runtime']} {row['runtime_version']}", f"{row['params']:,}", f"{row['macs'] / 1e6:,.1f}"]
        cells.append(kilobytes(row["size_bytes"]))
        cells.append(interval(row["p50_us"], row["p50_us_lo"], row["p50_us_hi"], digits=1))
        cells.append(interval(row["p50_ratio"], row["p50_ratio_lo"], row["p50_ratio_hi"], digits=2))
        figures = row["test"] or {"auc": None, "auc_lo": None, "auc_hi": None}
        cells.append(interval(figures["auc"], figures["auc_lo"], figures["auc_hi"]))
        lines.append(cells)
    text = (
        f"Other networks in the same rounds, exported by {rows[0]['made_by']}, int8 after training. Of untrained "
        "networks only latency and size are measured."
    )
    return [f"{text}\n", markdown_table(head, lines, text=head[:3])]


def _candidates(row: Row) -> str:
    """Return the settings that were tried for a peer."""
    tried = "; ".join(f"{candidate['settings']}: {candidate['auc_valid']:.4f}" for candidate in row["candidates"])
    return f"{row['name']}: the settings with the highest AUC on valid, of {tried}."
