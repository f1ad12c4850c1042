"""Energy counters in the folder layout of the kernel."""

from histoedge.cell import energy


def zone(powercap, name, *, microjoules, span=1_000_000):
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")


def test_packages_are_counted_and_their_subzones_are_not(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        zone(tmp_path, name, microjoules=100)
    meter = energy.Meter(tmp_path)
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        zone(tmp_path, name, microjoules=300_100)
    assert meter.joules() == 0.6


def test_a_counter_may_wrap_around(tmp_path):
    zone(tmp_path, "intel-rapl:0", microjoules=900_000)
    meter = energy.Meter(tmp_path)
    zone(tmp_path, "intel-rapl:0", microjoules=100_000)
    assert meter.joules() == 0.2


def test_energy_is_none_if_a_counter_cannot_be_read(tmp_path):
    assert energy.Meter(tmp_path / "missing").joules() is None
    zone(tmp_path, "intel-rapl:0", microjoules=1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")
    assert energy.Meter(tmp_path).joules() is None
