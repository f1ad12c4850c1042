"""What the CPU packages take, where the machine tells: Intel's and AMD's RAPL counters through Linux's powercap."""

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Meter:
    """Runs from when it is made. Counts whole packages: every process on the machine, and what they take when idle.

    The counters are those of the kernel's Documentation/power/powercap/powercap.rst, microjoules that wrap around;
    since 2020 only root may read them on most systems.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._packages = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._started = [_number(zone / "energy_uj") for zone in self._packages]

    def joules(self) -> float | None:
        """Since the start; None where a package does not tell, or there is none. A range must not pass twice."""
        total = 0
        for zone, before in zip(self._packages, self._started, strict=True):
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
