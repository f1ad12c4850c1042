"""``histoedge bench`` on the command line."""

import json

import pytest
from click.testing import CliRunner

from histoedge.cli import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    assert CliRunner().invoke(main, ["data", "synth", str(place), "--patches", "320"]).exit_code == 0
    return place


def test_options_can_repeat_and_override_the_settings_file(write_mean_red, tmp_path, data):
    settings = tmp_path / "plan.toml"
    settings.write_text(
        "[bench]\nbatch = [1, 64]\nrounds = 2\nruns_per_round = 2\nmax_seconds = 0\ninteger_peak = false"
    )
    model, out = write_mean_red(tmp_path / "fp32.onnx"), tmp_path / "r.json"
    command = ["bench", model, "--data", data, "--out", out, "--config", settings, "--json"]
    command += ["--runtime", "onnxruntime", "--batch", 1, "--batch", 3, "--batch", 3, "--scenario", "multi-stream"]
    result = CliRunner().invoke(main, [str(argument) for argument in command])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads(out.read_text())
    assert [row["batch"] for row in document["measurements"]] == [1, 3, 8]
    assert [row["scenario"] for row in document["measurements"]] == ["single-stream", None, "multi-stream"]
    assert document["inputs"]["plan"]["batch"] == [1, 3]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--threads", "0"], 2, "0 is not in the range x>=1"),
        (["--field", "31"], 2, "31 is not in the range x>=32"),
        (["--scenario", "server"], 2, "'server' is not one of"),
        (["--runtime", "onnxrunime"], 1, "did you mean onnxruntime"),
        (["--runtime", "litert-builtin"], 1, "none of 1 files can be opened by litert-builtin"),
    ],
)
def test_a_wrong_option_is_refused(write_mean_red, tmp_path, data, options, code, message):
    model, out = write_mean_red(tmp_path / "fp32.onnx"), tmp_path / "r.json"
    result = CliRunner().invoke(main, ["bench", str(model), "--data", str(data), "--out", str(out), *options])
    assert result.exit_code == code
    assert message in result.stderr
    assert not list(tmp_path.glob("r.json*"))
