"""Keras backends: missing ones are reported in one line, and log lines of TensorFlow are suppressed."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab

TRAIN = "; from histoedge.cli import main; main(['train', '--data', sys.argv[1], '--out', 'never'])"


@pytest.mark.parametrize(
    ("backend", "before", "message"),
    [
        ("jax", "sys.modules['jax'] = None", "pip install 'histoedge[lab,jax]'"),
        ("abacus", "pass", "use tensorflow, jax or torch"),
    ],
)
def test_a_missing_backend_is_one_line_with_the_install_command(backend, before, message, tiny_data, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {before}{TRAIN}", tiny_data],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("jax", "from histoedge.lab import backend; backend.keras(); backend.set_random_seed(0)"),
        ("tensorboard", "from histoedge.lab import callbacks; callbacks.to_tensorboard(Path(sys.argv[1]), 'run')"),
    ],
)
def test_log_lines_of_tensorflow_are_suppressed_when_another_package_imports_it(package, code, tmp_path) -> None:
    pytest.importorskip(package)
    backend = {"KERAS_BACKEND": "jax"} if package == "jax" else {}
    statements = f"import sys; from pathlib import Path; {code}; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", statements, tmp_path],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1", **backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")
