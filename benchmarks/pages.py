"""Write the benchmark pages, the table in README.md and the model cards from committed results.

``python benchmarks/pages.py`` writes ``benchmarks/README.md``, the index by question; ``results/<machine>/README.md``,
all results of a machine; the table of released networks in the project's README; and ``exported/*/README.md``.
Each ``results/<machine>/<name>.json`` is the ``bench.json`` of a run with the settings of ``<name>.toml``
(``<name>-seedN.json`` for another seed), that of the suite on all released models (``suite.json``; on synthetic patches
``suite-synthetic.json``), or a document of a script of this folder, with a ``kind``.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import release
from committed import HERE, ResultsFile, committed_results
from markdown_table import markdown_table
from questions import QUESTIONS, question_parts
from sections import SECTIONS, section

from histoedge import files
from histoedge.metrics import value_of
from histoedge.reporting.tables import fixed, kilobytes, micros, with_bounds

BEGIN, END = "<!-- released: make tables -->", "<!-- end -->"  # in the project's README

HEADER = """# Benchmarks

`make tables` generates this page and the page of each machine from the JSON files in `results/`. The command above each
table makes its figures; the column headings link to all results of the machine. Brackets contain 95 % intervals.
Networks are trained on PatchCamelyon's `train` split, chosen on `valid` and reported once on `test`. In the commands,
DATA is a folder with PatchCamelyon's HDF5 files, RUN a finished run, MODEL an exported file and F the results file.
"""


def index_page(results: Sequence[ResultsFile]) -> str:
    """Return ``benchmarks/README.md``: questions, headline figures, and links to the machines."""
    questions = [f"- [{question.title}](#{_anchor(question.title)})" for question in QUESTIONS]
    counts = {file.machine: sum(other.machine == file.machine for other in results) for file in results}
    machines = [f"- [{name}](results/{name}/README.md) (results files: {count})" for name, count in counts.items()]
    parts = [HEADER, "\n".join(questions) + "\n", "All results by machine:\n", "\n".join(machines) + "\n"]
    for question in QUESTIONS:
        parts += question_parts(question, results)
    return "\n".join(parts).rstrip() + "\n"


def machine_page(results: Sequence[ResultsFile]) -> str:
    """Return ``results/<machine>/README.md``, with a section for each results file of the machine."""
    machine = results[0].machine
    contents = [f"- [{file.name}](#{file.name}): {_lower_first(SECTIONS[file.kind][0])}" for file in results]
    parts = [
        f"# Benchmarks on {machine}\n",
        f"`make tables` generates this page from the JSON files of this folder. {_description(results)} Questions and "
        "headline figures: [benchmarks](../../README.md).\n",
        "\n".join(contents) + "\n",
    ]
    for file in results:
        parts += section(file)
    return "\n".join(parts).rstrip() + "\n"


def _description(results: Sequence[ResultsFile]) -> str:
    """Return the CPUs and systems in the results, one sentence each."""
    sentences = []
    for environment in (file.document["environment"] for file in results):
        memory = f"{environment['memory_bytes'] / 1e9:.0f} GB of memory, " if environment.get("memory_bytes") else ""
        cpus = environment.get("cpus_allowed") or environment.get("cpus_in_machine")
        sentences.append(f"{environment['cpu']}, {cpus} CPUs, {memory}{environment['system']}.")
    return " ".join(dict.fromkeys(sentences))


def _lower_first(title: str) -> str:
    return title[0].lower() + title[1:]


def _anchor(title: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    kept = (character for character in title.lower() if character.isalnum() or character in " -_")
    return "".join(kept).replace(" ", "-")


def released() -> str:
    """Return the table of released networks, from the results that their model cards name."""
    head = ["network", "MMAC", "int8 kB", "AUC on test, int8", "fp32", "LiteRT p50 us", "ONNX Runtime p50 us", "from"]
    lines = []
    for folder in release.released_folders():
        file = release.results_of(folder)
        rows = {(row.model, row.runtime): row for row in file.bench.measurements}
        int8, fp32 = (rows[f"{recipe}.onnx", "onnxruntime"] for recipe in ("int8", "fp32"))
        cells = [f"`{folder.name}`", f"{(int8.macs or 0) / 1e6:.1f}", kilobytes(int8.size_bytes)]
        cells += [with_bounds(row.auc) for row in (int8, fp32)]
        for key in (("int8.tflite", "litert"), ("int8.onnx", "onnxruntime")):
            cells.append(f"{micros(value_of(rows[key].p50_ms))}, {fixed(value_of(rows[key].p50_ratio), 2)} of fp32")
        lines.append([*cells, f"`benchmarks/{file.place}`"])
    return markdown_table(head, lines, text=("network", "AUC on test, int8", "fp32", *head[5:]))


def with_released(readme: str) -> str:
    """Return the project's README with the current table of released networks."""
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}\n{released()}{END}{rest.split(END)[1]}"


def all_pages(folder: Path = HERE) -> Iterator[tuple[Path, str]]:
    """Yield path and text of each generated page."""
    results = committed_results(folder)
    yield folder / "README.md", index_page(results)
    for machine in dict.fromkeys(file.machine for file in results):
        page = machine_page([file for file in results if file.machine == machine])
        yield folder / "results" / machine / "README.md", page
    readme = folder.parent / "README.md"
    yield readme, with_released(readme.read_text())
    for released_folder in release.released_folders():
        yield released_folder / "README.md", release.released_card(released_folder)


if __name__ == "__main__":
    for path, text in all_pages():
        files.write_text(path, text)
        sys.stdout.write(f"{path}\n")
