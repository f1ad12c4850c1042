"""Write benchmarks/README.md from the committed results: ``python benchmarks/tables.py``.

Each ``results/<machine>/<name>.json`` is the ``bench.json`` of a run with the settings of ``<name>.toml``.
"""

import sys
from pathlib import Path

from histoedge import bench, config, files, report

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
        measured = bench.read(results)
        command = f"histoedge run --data DATA --out RUN --config benchmarks/{settings.name}{_recipes(measured)}"
        place = f"results/{results.parent.name}/{results.name}"
        parts.append(f"`{command}`; its `RUN/bench.json` is `{place}`.\n")
        parts.append(f"```toml\n{settings.read_text().strip()}\n```\n")
        parts.append(report.markdown(measured))
    return "\n".join(parts).rstrip() + "\n"


def _recipes(measured: bench.Results) -> str:
    """The ``--recipe`` options of the command, nothing for the default five."""
    names = list(dict.fromkeys(row.recipe for row in measured.measurements))
    return "" if set(names) == set(config.DEFAULT_RECIPES) else "".join(f" --recipe {name}" for name in names)


if __name__ == "__main__":
    files.write_text(HERE / "README.md", page())
    sys.stdout.write(f"{HERE / 'README.md'}\n")
