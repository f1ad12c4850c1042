"""python benchmarks/renew_manifests.py MODEL...: write manifests of an earlier contract again, and verify their files.

The manifest gains the keys of the present contract with their defaults; model and golden patches keep their bytes.
"""

import argparse
import dataclasses
from pathlib import Path

from histoedge import files, verification
from histoedge.edge import manifest as manifests


def renew(model: Path) -> bool:
    """Write the manifest under the present contract and its verdict; return whether there was anything to change.

    Raises:
        ModelError: the model is missing, altered, or fails its verification.
    """
    manifest = manifests.read(model)
    if manifest.contract == manifests.CONTRACT:
        return False
    manifests.checked_bytes(model, manifest)
    renewed = dataclasses.replace(manifest, contract=manifests.CONTRACT)
    files.write_json(manifests.manifest_path(model), renewed.as_json())
    verification.verify(model)
    verification.passed_on(model)
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    for path in parser.parse_args().models:
        print(f"{path}: {'renewed' if renew(path) else 'current'}")
