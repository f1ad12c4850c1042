"""Use of a model: predict, explain, scan, embed."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from histoedge.api.arguments import Place, Places, as_tuple
from histoedge.progress import Progress, silent

if TYPE_CHECKING:
    from histoedge.explanation.pictures import Explained
    from histoedge.lab.gradcam import GradCam
    from histoedge.prediction import Prediction
    from histoedge.scanning.outcome import SlideOutcome as ScanOutcome


def predict(
    model: Place,
    places: Places,
    *,
    csv: Place | None = None,
    at: str | None = None,
    runtime: str | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> "list[Prediction]":
    """Predict the positive class' probability of images, in the order given; folders sorted by file name.

    ``csv`` is a file to write, with the columns id,label (label: the probability).

    Raises:
        DataError: an image is not a patch of the model's size; ``csv`` is then not written.
    """
    from histoedge import prediction

    paths = prediction.images([Path(place) for place in as_tuple(places)])
    predictions: list[Prediction] = []
    for row in prediction.predict(Path(model), paths, at=at, runtime=runtime, threads=threads):
        predictions.append(row)
        progress("predict, images", len(predictions), len(paths))
    if csv is not None:
        prediction.write_csv(Path(csv), predictions)
    return predictions


def explain(
    model: Place,
    places: Places = (),
    *,
    data: Place | None = None,
    out: Place = "explain",
    runtime: str | None = None,
    no_cache: bool = False,
    progress: Progress = silent,
) -> "Explained":
    """Draw where a model looks: heat maps of patches, and the share of the evidence in the labelled centre.

    ``model`` is an exported file (occlusion) or a run's weights file (occlusion and Grad-CAM). ``data`` adds a contact
    sheet and the evidence of 256 patches, both from the valid split.

    Returns:
        A row for each image with the path of its picture, the evidence, the path of the contact sheet, and the
        temperature of the probabilities: the manifest's, or for weights the value that export writes into it.
    """
    from histoedge import data as sources
    from histoedge import prediction
    from histoedge.edge.errors import ConfigError
    from histoedge.explanation import open_model, pictures

    images = as_tuple(places)
    if not images and data is None:
        raise ConfigError("explain needs patches: give images, folders of images, or --data DATA")
    paths = prediction.images([Path(place) for place in images])
    opened = open_model(Path(model), runtime=runtime, open_weights=_open_weights)
    split = None
    if data is not None:
        split = sources.load(str(data), splits=("valid",), cache=not no_cache, progress=progress)["valid"]
    return pictures.explain(opened, paths, split, Path(out), progress=progress)


def scan(
    places: Places,
    *,
    model: Place,
    out: Place,
    um_per_px: float | None = None,
    at: str | None = None,
    everywhere: bool = False,
    field: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    runtime: str | None = None,
    progress: Progress = silent,
    on_outcome: "Callable[[ScanOutcome], None]" = lambda outcome: None,
) -> "list[ScanOutcome]":
    """Map whole slides, and folders of slides, into ``out/<slide>/``. An interrupted scan resumes when called again.

    ``on_outcome`` is called with the outcome of each slide when it is finished.

    Returns:
        The outcome of each slide. An unreadable slide has the status ``failed`` and a reason; the others are scanned.
    """
    from histoedge.scanning import FIELD_PX, Scan
    from histoedge.scanning import batch as slides
    from histoedge.scanning.engine import Workers

    job = slides.BatchJob(
        model=Path(model),
        settings=Scan(um_per_px=um_per_px, mask=not everywhere, field_px=field or FIELD_PX, runtime=runtime),
        workers=Workers.of_machine() if workers is None else Workers.of_cores(workers),
        at=at,
        scheduler=scheduler,
        progress=progress,
        on_outcome=on_outcome,
    )
    return slides.scan_all(slides.find_slides([Path(place) for place in as_tuple(places)]), Path(out), job)


def embed(model: Place, *, into: Place) -> tuple[Path, ...]:
    """Write one folder to copy: the model, the code to run it without histoedge, a self-test, examples and a README.

    Returns:
        The paths of its files, relative to the folder.

    Raises:
        ModelError: the model has no passing verdict on its bytes; call ``verify`` first.
    """
    from histoedge import kit

    return kit.embed(Path(model), Path(into))


def _open_weights(weights: Path) -> "GradCam":
    from histoedge.lab.gradcam import GradCam  # imports TensorFlow

    return GradCam(weights)
