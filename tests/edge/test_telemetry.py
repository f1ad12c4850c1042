"""Opening a model writes no files outside its folder."""

import os
import subprocess
import sys
from pathlib import Path


def test_opening_a_model_leaves_nothing_in_the_users_home(mean_red: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    hidden = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"}  # each would hide the problem
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"HOME": str(home)}
    code = f"from histoedge import edge; edge.load({str(mean_red)!r}, runtime='onnxruntime')"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=tmp_path)
    assert list(home.rglob("*")) == []
