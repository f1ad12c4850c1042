"""The index of the benchmarks: questions, each with its headline figures and the commands that make them."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import figures
import slidemaker
import system_figures
from committed import ResultsFile
from figures import Figure
from markdown_table import markdown_table

from histoedge.metrics import value_of
from histoedge.reporting.tables import kilobytes, micros_with_bounds, with_bounds


@dataclass(frozen=True)
class Question:
    """A question, the method, and the functions that return its figures by kind of the results file."""

    title: str
    method: str
    figures: Mapping[str, Callable[[ResultsFile], Iterable[Figure]]]


QUESTIONS = (
    Question(
        "Which architecture?",
        "Each network with the smallest file of its run, on the runtime with the lowest p50. Networks were chosen on "
        "`valid`; the AUC on `test` was computed once.",
        {"peers": figures.other_networks},
    ),
    Question(
        "How to preprocess and augment?",
        "One choice is changed at a time in short trainings without a teacher: mean AUC on `valid` over the seeds.",
        {"ablations": figures.augmentation},
    ),
    Question(
        "Which hyperparameters?",
        "AUC on `valid` of short trainings and of the full trainings of the released networks; then int8 against fp32 "
        "on `valid` with settings of quantisation-aware training.",
        {
            "ablations": figures.hyperparameters,
            "trainings": figures.trainings,
            "quantise": figures.quantisation_settings,
        },
    ),
    Question(
        "How fast is int8?",
        "Batch 1, one thread, interleaved rounds; 95 % bootstrap intervals. The ratio is to the network's own fp32 "
        "file of the same format on the same runtime.",
        {"suite": figures.int8_speed, "run": figures.speed_without_amx},
    ),
    Question(
        "Do exports answer the same?",
        "Int8 against fp32, runtimes against each other, old and new releases of the runtimes, and a CPU without VNNI.",
        {
            "suite": figures.int8_quality,
            "runtimes": figures.runtime_releases,
            "saturation": figures.saturation,
        },
    ),
    Question(
        "How trustworthy are the intervals?",
        "Coverage in simulations with a known true value, with its 95 % Wilson interval; and the ratio test on the "
        "same file twice and on a file slowed by 5 %. DeLong's interval assumes independent patches and is too narrow "
        "for patches of few slides: see the rows on whole slides. Expect different figures on your slides: the "
        "intervals cover sampling, not a new laboratory.",
        {"coverage": figures.coverage, "aa": figures.ratio_test},
    ),
    Question(
        "How does it compare with other tools?",
        "Int8 files of one run against other quantisers of the same network; 95 % intervals.",
        {"peers": figures.other_quantisers},
    ),
    Question(
        "Does an imported Keras model keep its answers?",
        "Models of twelve shapes, briefly trained, imported from .keras and .h5; AUC on `valid`.",
        {"imports": figures.imports},
    ),
    Question(
        "How fast is training?",
        "Patches per second against a plain Keras `fit`; 95 % bootstrap intervals of the ratios.",
        {"throughput": figures.throughput, "packing": figures.packing},
    ),
    Question(
        "Does it run at full size?",
        "One epoch of `nano` on as many training patches as PatchCamelyon has.",
        {"full size": figures.full_size},
    ),
    Question(
        "How fast is a whole slide?",
        f"The synthetic slide of `slidemaker.py`: {slidemaker.SIDE_PX:,} x {slidemaker.SIDE_PX:,} px, "
        f"{slidemaker.TISSUE:.0%} of it tissue. Ratios have 95 % bootstrap intervals.",
        {"slides": system_figures.whole_slides},
    ),
    Question(
        "What happens in other light?",
        "Streams of patches of other slides than the training patches, cut into groups of similar patches, unchanged "
        "and with faults of light, stain, focus, compression and scale: how many are reported as drift.",
        {"drift": figures.drift},
    ),
    Question(
        "What does the runner cost, and can threads share it?",
        "Extra time at the median with its 95 % interval; answers compared bit for bit.",
        {"overhead": system_figures.runner_overhead, "threads": system_figures.shared_model},
    ),
    Question(
        "What happens with damaged files?",
        "Random changes of model, manifest and golden patches. Forged files have recomputed hashes.",
        {"fuzz": system_figures.damaged_files},
    ),
    Question(
        "Does the doctor name the mistake?",
        "Known mistakes in the preparation of patches and logits, on synthetic patches.",
        {"doctor": system_figures.diagnoses},
    ),
    Question(
        "Which installs and runtime releases work?",
        "Fresh virtual environments with the oldest and the newest release of each runtime.",
        {"runtimes": figures.installs},
    ),
)


def question_parts(question: Question, results: Sequence[ResultsFile]) -> list[str]:
    """Return heading, method, and a table for each command that makes figures of the question."""
    parts = [f"## {question.title}\n", f"{question.method}\n"]
    if question is QUESTIONS[0]:
        parts += networks_parts(results)
    for kind, figures_of in question.figures.items():
        of_kind = [file for file in results if file.kind == kind]
        for command in dict.fromkeys(file.command for file in of_kind):
            parts += _command_parts(command, [file for file in of_kind if file.command == command], figures_of)
    return parts


def _command_parts(
    command: str, results: Sequence[ResultsFile], figures_of: Callable[[ResultsFile], Iterable[Figure]]
) -> list[str]:
    """Return a command and its figures, with a column for each results file; empty where there is no figure."""
    columns = {file.section: dict(figures_of(file)) for file in results}
    columns = {name: values for name, values in columns.items() if values}
    names = dict.fromkeys(name for values in columns.values() for name in values)
    if not names:
        return []
    lines = [[name, *(values.get(name, "") for values in columns.values())] for name in names]
    head = ["figure", *columns]
    return [f"`{command}`:\n", markdown_table(head, lines, text=head)]


def networks_parts(results: Sequence[ResultsFile]) -> list[str]:
    """Return the table of all networks, and the spread over seeds."""
    head = ["network", "MMAC", "file", "size kB", "runtime", "p50 us", "AUC on test", "machine", "command"]
    lines = []
    for file in results:
        if file.kind != "run":
            continue
        rows = [row for row in file.bench.measurements if row.measured and row.format != "keras"]
        for recipe in ("int8", "slim50_int8") if any(row.recipe == "int8" for row in rows) else ("fp32",):
            files = [row for row in rows if row.recipe == recipe]
            if not files:
                continue
            row = min(files, key=lambda each: value_of(each.p50_ms) or float("inf"))
            cells = [row.network or "", f"{(row.macs or 0) / 1e6:.1f}", row.model, kilobytes(row.size_bytes)]
            cells += [f"{row.runtime} {row.runtime_version}", micros_with_bounds(row.p50_ms)]
            cells += [with_bounds(row.auc), file.section, f"`{file.command}`"]
            lines.append(cells)
    text = ("network", "file", "runtime", "machine", "command")
    return [markdown_table(head, lines, text=text), *_seeds_parts(results)]


def _seeds_parts(results: Sequence[ResultsFile]) -> list[str]:
    """Return the spread of the AUC over seeds, for networks that were trained with several."""
    areas: dict[str, list[float]] = {}
    for file in results:
        if file.kind != "run" or file.without_amx:
            continue
        for row in file.bench.measurements:
            if row.model == "int8.onnx" and row.runtime == "onnxruntime" and row.auc is not None:
                areas.setdefault(file.settings, []).append(row.auc.value)
    lines = [
        f"- `{name}`, {len(values)} seeds: mean AUC of int8.onnx on test {statistics.mean(values):.4f}, from "
        f"{min(values):.4f} to {max(values):.4f}."
        for name, values in areas.items()
        if len(values) > 1
    ]
    return ["\n".join(lines) + "\n"] if lines else []
