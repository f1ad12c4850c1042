"""One measured cell as data."""

from dataclasses import dataclass

from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.quality import Robustness
from histoedge.edge.patches import PATCH_PX
from histoedge.metrics import Interval

STATUSES = ("ok", "unsettled", "unavailable", "failed")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One file on one runtime with one number of threads and one shape of call. None: not measured.

    Identity:
        ``scenario`` is the name of the shape, a key of ``config.SCENARIOS``; None for a shape without a name. Times
        are milliseconds per call of ``batch`` square fields of ``field_px``. ``cpus`` is the number of CPUs that the
        threads of the process may use, ``os_threads`` the number of its threads after the first call. ``sha256`` is
        the hash of the model file.

    Status:
        ``ok``; ``unsettled``: measured, but the 95 % interval of p50 is wider than the plan's ``settled_width``, or
        there was only one round; ``unavailable``: the runtime or its device is missing, there are fewer CPUs than
        ``threads``, or a field has no meaning to the file; ``failed``. Every status but ``ok`` has a ``reason``.

    Size:
        ``compressed_bytes`` is the file after zlib at its highest level, ``zeros`` the share of zeros in its kernels.

    Speed:
        ``load_ms`` opens the file, after the import of the runtime's modules. ``first_ms`` is the first call after
        that. ``n_calls`` calls were timed in ``n_rounds`` rounds. A call returns ``n_outputs`` logits.
        ``patches_per_s`` counts logits, ``mpx_per_s`` millions of input pixels. ``p50_ratio`` is this p50 over the
        reference's p50 in the same round, the median of all rounds. ``peak_share`` is the multiply-accumulates (MACs)
        per second at p50, over the highest ``integer_peak_gmacs`` of the environment for this number of threads. It
        is None for fields larger than a patch (manifests do not contain their MACs), on a GPU, and when no runtime
        could measure the peak.

    Memory and energy:
        ``peak_rss_bytes`` is the peak resident memory of the whole process with its interpreter,
        ``rss_over_empty_bytes`` that minus the peak of a process that opens no model. ``energy_mj`` is the energy of
        all CPU packages per call in millijoules, including what other processes used.

    Quality, on the test split:
        ``ece`` is ``metrics.calibration_error`` of the probabilities at the manifest's temperature; for the source
        network at that of its fp32 file, None without one. The intervals of ``sensitivity_at_*`` and
        ``specificity_at_*`` are bootstrap intervals that choose the threshold again in each resample. ``auc_slides``
        and ``d_auc_slides`` are ``auc`` and ``d_auc`` with intervals that resample whole slides.

    Comparison:
        ``reference`` is the file that ``d_auc`` (this AUC minus the reference's, paired DeLong), ``flips``,
        ``mcnemar_p`` and ``p50_ratio`` compare with: the fp32 file of the same format on the same runtime. For fp32
        files it is the source network, without a ratio.

    All intervals are 95 %. Results files of earlier versions lack some of the figures; these are None.
    """

    model: str
    recipe: str
    format: str
    network: str | None = None
    runtime: str
    runtime_version: str | None = None
    kernels: str | None = None
    scenario: str | None = None
    threads: int
    cpus: int | None = None
    os_threads: int | None = None
    batch: int
    field_px: int
    status: str
    reason: str | None = None
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    zeros: float | None = None
    params: int | None = None
    macs: int | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    p50_ms: Interval | None = None
    p90_ms: Interval | None = None
    p95_ms: Interval | None = None
    p99_ms: Interval | None = None
    n_calls: int | None = None
    n_rounds: int | None = None
    n_outputs: int | None = None
    patches_per_s: Interval | None = None
    mpx_per_s: float | None = None
    peak_rss_bytes: int | None = None
    rss_over_empty_bytes: int | None = None
    energy_mj: float | None = None
    peak_share: float | None = None
    auc: Interval | None = None
    n_patches: int | None = None
    ece: float | None = None
    sensitivity_at_95_specificity: Interval | None = None
    reference: str | None = None
    d_auc: Interval | None = None
    p50_ratio: Interval | None = None
    sha256: str | None = None
    sensitivity_at_90_specificity: Interval | None = None
    sensitivity_at_99_specificity: Interval | None = None
    specificity_at_90_sensitivity: Interval | None = None
    specificity_at_95_sensitivity: Interval | None = None
    specificity_at_99_sensitivity: Interval | None = None
    brier: Interval | None = None
    auc_slides: Interval | None = None
    flips: int | None = None
    flips_to_positive: int | None = None
    flips_to_negative: int | None = None
    mcnemar_p: float | None = None
    d_auc_slides: Interval | None = None
    ms_quantiles: tuple[float, ...] | None = None
    roc: Roc | None = None
    reliability: Reliability | None = None
    robustness: tuple[Robustness, ...] | None = None

    @property
    def of_patches(self) -> bool:
        """Whether a field of this cell is one patch; of a cell without figures, whether it is one of 96 px."""
        return self.field_px == PATCH_PX if self.n_outputs is None else self.n_outputs == self.batch

    @property
    def measured(self) -> bool:
        """Whether the cell has figures: ``ok`` or ``unsettled``."""
        return self.status in ("ok", "unsettled")


def is_int8(row: Measurement) -> bool:
    """Whether the file computes in integers, by the name of its recipe."""
    return "int8" in row.recipe
