"""Write benchmarks/README.md from the committed results: ``python benchmarks/tables.py``.

Each ``results/<machine>/<name>.json`` is the ``bench.json`` of a run with the settings of ``<name>.toml``.
"""

import sys
from pathlib import Path

from histoedge import bench, files, report

HERE = Path(__file__).parent

HEADER = """# Benchmarks

Made from `results/` by `make tables`; nothing here is typed by hand. Each table is the `bench.json` of one run on
PatchCamelyon's patches with the settings beside it: trained on `train`, chosen on `valid`, reported once on `test`.
DATA is a folder with PatchCamelyon's HDF5 files.
"""


def page() -> str:
    """The whole of ``benchmarks/README.md``."""
    parts = [HEADER]
    for results in sorted(HERE.glob("results/*/*.json")):
        settings = HERE / f"{results.stem}.toml"
        parts.append(f"## {results.stem}, on {results.parent.name}\n")
        parts.append(f"`histoedge run --data DATA --out RUN --config benchmarks/{settings.name}`, ")
        parts.append(f"then `RUN/bench.json` is `results/{results.parent.name}/{results.name}`.\n")
        parts.append(f"```toml\n{settings.read_text().strip()}\n```\n")
        parts.append(report.markdown(bench.read(results)))
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    files.write_text(HERE / "README.md", page())
    sys.stdout.write(f"{HERE / 'README.md'}\n")
