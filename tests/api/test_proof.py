"""Functions that verify, measure and compare do what their commands do."""

from collections.abc import Callable
from pathlib import Path

import pytest

import histoedge
from histoedge.edge.errors import ConfigError, ModelError


def test_verify_embed_and_diff_are_the_commands(mean_red: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match="no passing verdict"):
        histoedge.embed(mean_red, into=tmp_path / "into")
    assert histoedge.verify(str(mean_red)).passed
    written = histoedge.embed(str(mean_red), into=str(tmp_path / "into"))
    command("embed", mean_red, "--into", tmp_path / "again")
    again = sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file())
    assert list(written) == again
    assert histoedge.diff(mean_red, str(mean_red)).need == "nothing"
    assert "new validation needed? no" in command("diff", mean_red, mean_red)


def test_bench_and_report_are_the_commands(mean_red: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    pytest.importorskip("scipy")
    data, settings, out = tmp_path / "data", tmp_path / "quick.toml", tmp_path / "r.json"
    command("data", "synth", data, "--patches", 64)
    settings.write_text(
        "[bench]\nrounds = 2\nruns_per_round = 3\nwarmup_runs = 1\nmax_seconds = 0\ninteger_peak = false\n"
    )
    arguments = {"data": data, "out": out, "config": settings, "runtime": "onnxruntime"}
    benched = histoedge.bench(mean_red, **arguments, gate=["auc >= 0", "size_bytes < 1"], junit=tmp_path / "j.xml")
    assert [row.runtime for row in benched.results.measurements] == ["onnxruntime"]
    assert [gate.outcome for gate in benched.gates] == ["passed", "failed"]
    assert benched.open_gates == ("size_bytes < 1",)
    assert (tmp_path / "j.xml").is_file()
    with pytest.raises(ConfigError, match="add --gate EXPR"):
        histoedge.bench(mean_red, **arguments, junit=tmp_path / "j.xml")
    assert histoedge.report(out, html=tmp_path / "a.html", md=str(tmp_path / "a.md")) == benched.results
    command("report", out, "--html", tmp_path / "b.html", "--md", tmp_path / "b.md")
    for kind in ("html", "md"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with pytest.raises(ConfigError, match="also give --html"):
        histoedge.report(out, flips=tmp_path / "f.png")
