"""What is said where Keras cannot compute with the backend that was asked for."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab

TRAIN = "; from histoedge.cli import main; main(['train', '--data', sys.argv[1], '--out', 'never'])"


@pytest.mark.parametrize(
    ("asked", "before", "told"),
    [
        ("jax", "sys.modules['jax'] = None", "pip install 'histoedge[lab,jax]'"),
        ("abacus", "pass", "use tensorflow, jax or torch"),
    ],
)
def test_a_backend_that_is_not_there_is_one_line_with_what_to_install(asked, before, told, tiny_data, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {before}{TRAIN}", tiny_data],
        env={**os.environ, "KERAS_BACKEND": asked},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
