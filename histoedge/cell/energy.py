"""Energy of the CPU packages: the RAPL counters of Intel and AMD, read through powercap of Linux."""

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Meter:
    """Measures from its construction the energy of whole packages, which includes other processes and idle power.

    The counters are described in Documentation/power/powercap/powercap.rst of the kernel: microjoules that wrap around.
    Since 2020 only root may read them on most systems.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._packages = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._first = [_number(zone / "energy_uj") for zone in self._packages]

    def joules(self) -> float | None:
        """Return joules since construction; None if a package has no reading or there is no package.

        Correct while each counter wraps around at most once.
        """
        total = 0
        for zone, before in zip(self._packages, self._first, strict=True):
            now, span = _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
            if before is None or now is None or span is None:
                return None
            total += now - before if now >= before else now - before + span
        return total / 1e6 if self._packages else None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
