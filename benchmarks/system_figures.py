"""Headline figures of slides, of the runner and of the tools around the models."""

from collections.abc import Iterator

from committed import ResultsFile
from figures import Figure

from histoedge.reporting.tables import interval


def whole_slides(file: ResultsFile) -> Iterator[Figure]:
    """Yield the time of a scan, its peak memory, and dense fields against separate patches."""
    for table in file.document["tables"]:
        for row in table["rows"]:
            if "peak_rss_mb" in row:
                value = f"{row['s']:.1f} s, peak {row['peak_rss_mb']:.0f} MB"
                yield f"`histoedge scan` of a slide of {row['slide']}, {row['fields']} fields with tissue", value
                value = f"same bytes: {row['same_bytes']}"
                yield f"map of a scan killed {row['kills']} times and resumed, against an undisturbed scan", value
            if row.get("stage") == "by the clock":
                value = f"{row['ms_per_mm2']:.1f} ms/mm2 of slide, {row['ms_per_mm2_of_tissue']:.1f} ms/mm2 of tissue"
                yield "wall-clock time of the scan by area", value
            if "dense_us_per_verdict" in row:
                ratio = interval(row["ratio"], row["ratio_lo"], row["ratio_hi"], digits=2)
                name = f"time of separate patches / dense fields, {row['model']} on {row['runtime'].split()[0]}"
                yield name, f"{ratio}; {row['dense_us_per_verdict']:.1f} us per verdict"


def runner_overhead(file: ResultsFile) -> Iterator[Figure]:
    """Yield the largest extra time of the runner over the bare interpreter."""
    rows = file.document["rows"]
    row = max(rows, key=lambda each: each["more_us"])
    extra = interval(row["more_us"], row["more_us_lo"], row["more_us_hi"], digits=2)
    name = "largest extra time of `Runner.predict` over the bare interpreter"
    yield name, f"{extra} us per call ({row['model']} on {row['runtime']}; {len(rows)} pairs of file and runtime)"


def shared_model(file: ResultsFile) -> Iterator[Figure]:
    """Yield wrong answers and growth of memory with many threads on one model."""
    rows = file.document["rows"]
    wrong, calls = (sum(row[key] for row in rows) for key in ("different_answers", "calls"))
    yield f"answers of {rows[0]['threads']} threads that differ from those of a single thread", f"{wrong} of {calls:,}"
    row = max(rows, key=lambda each: each["largest_growth_mb"])
    value = f"{row['largest_growth_mb']:.1f} MB in {row['seconds']:.0f} s ({row['model']} on {row['runtime']})"
    yield f"largest growth of memory with {row['threads']} threads", value


def damaged_files(file: ResultsFile) -> Iterator[Figure]:
    """Yield how the cases of damaged and forged files end."""
    rows = file.document["rows"]
    damaged = [row for row in rows if not row["changed"].endswith("signed")]
    forged = [row for row in rows if row["changed"].endswith("signed")]
    for name, group in (("damaged", damaged), ("forged", forged)):
        cases, refused, same, answered = (
            sum(row[key] for row in group) for key in ("cases", "refused", "same", "answered")
        )
        rest = cases - refused - same - answered
        value = f"{refused:,} refused, {same:,} with unchanged content, {answered:,} answered, {rest:,} other outcomes"
        yield f"{name} {rows[0]['file']}, {cases:,} cases", value


def diagnoses(file: ResultsFile) -> Iterator[Figure]:
    """Yield the share of correct diagnoses of the doctor, by file, and its worst case."""
    rows = file.document["rows"]
    for model in dict.fromkeys(row["model"] for row in rows):
        judged = [row for row in rows if row["model"] == model and row["percent"] is not None]
        named, sets = sum(row["named"] for row in judged), sum(row["sets"] - row["within_tolerance"] for row in judged)
        worst = min(judged, key=lambda row: row["percent"])
        value = f"{named:,} of {sets:,}; worst case `{worst['made']}`: {worst['percent']:.0f} %"
        yield f"mistakes that the doctor names, {model}, {len(judged)} cases", value
