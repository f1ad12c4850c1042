"""The same network is trained from any source of patches and on any number of devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from histoedge import data
from histoedge.config import TrainConfig
from histoedge.edge.errors import DataError
from histoedge.lab import backend, feed, train
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row
from histoedge.lab.trainee import Trainee, TrainingJob

pytestmark = pytest.mark.lab

SETTINGS = TrainConfig(network="small", epochs=2, batch=64, seed=3)
SMALL = Network(
    "small",
    (Row(kind="conv", channels=8, kernel=8, stride=8), Row(kind="head", channels=1, kernel=12, bias=True)),
)

JAX = """
import json, sys
import jax
from histoedge import data
from histoedge.config import TrainConfig
from histoedge.lab import backend
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row
from histoedge.lab.trainee import Trainee, TrainingJob

network = Network(
    "small",
    (Row(kind="conv", channels=8, kernel=8, stride=8), Row(kind="head", channels=1, kernel=12, bias=True)),
)

def bytes_by_device():
    held, seen = {}, set()
    for array in jax.live_arrays():
        for shard in array.addressable_shards:
            if shard.data.unsafe_buffer_pointer() not in seen:
                seen.add(shard.data.unsafe_buffer_pointer())
                held[str(shard.device)] = held.get(str(shard.device), 0) + shard.data.nbytes
    return held

def trained(patches_on):
    keras.utils.set_random_seed(0)
    with devices.scope():
        config = TrainConfig(epochs=2, batch=16, focus=0.0)
        job = TrainingJob(
            network=network, splits={"train": split}, config=config, devices=devices, patches_on=patches_on
        )
        trainee = Trainee(keras, job)
        losses = [trainee.epoch(epoch) for epoch in range(2)]
    weights = {name: value.tobytes().hex() for name, value in trainee.weights().items()}
    return {"losses": losses, "held": bytes_by_device(), "weights": weights}

source, *places = sys.argv[1:]
devices = backend.use_device("auto")
split = data.load(source, splits=("train",))["train"]
keras = backend.keras()
print(json.dumps({"summary": devices.summary, "trainings": [trained(place) for place in places]}))
"""


@pytest.fixture(scope="module")
def splits(tiny_data: Path) -> dict[str, data.Split]:
    return data.load(str(tiny_data))


def on_jax(source: Path, *patches_on: str, devices: int) -> dict:
    """Train in a process on so many JAX devices, once for each place of the patches."""
    variables = {"KERAS_BACKEND": "jax", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(source), *patches_on],
        env={**os.environ, **variables, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_patches_in_memory_and_from_disk_give_the_same_bytes(splits, tmp_path: Path) -> None:
    runs = [tmp_path / on for on in ("device", "disk")]
    for run in runs:
        train.train(splits, SETTINGS, run, network=SMALL, patches_on=run.name)
    assert len({(run / "fp32.weights.h5").read_bytes() for run in runs}) == 1
    for run in runs:
        notice = "are stored in memory" if run.name == "device" else "are read from disk"
        assert notice in (run / "train.log").read_text()


def test_the_stored_patches_are_those_of_the_split(splits) -> None:
    keras = backend.keras()
    layer = feed.patches_layer(keras, splits["train"], devices=backend.use_device("cpu"))
    chosen = np.array([3, 0, 191, 3])
    np.testing.assert_array_equal(layer(chosen), splits["train"].patches[:][chosen])


def test_patches_that_are_cut_off_in_the_middle_of_an_epoch_are_named(tiny_data: Path, tmp_path: Path) -> None:
    for file in tiny_data.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    splits = data.load(str(tmp_path), cache=False)
    x = tmp_path / "camelyonpatch_level_2_split_train_x.h5"
    with h5py.File(x) as whole:
        offset = whole["x"].id.get_offset()
    keras = backend.keras()
    devices = backend.use_device("cpu")
    job = TrainingJob(network=SMALL, splits=splits, config=SETTINGS, devices=devices, patches_on="disk")
    trainee = Trainee(keras, job)
    os.truncate(x, offset + 100 * 27_648)
    with pytest.raises(DataError, match=r"camelyonpatch_level_2_split_train_x.h5.*patch 1\d\d"):
        trainee.epoch(0)


def test_on_jax_patches_in_memory_and_from_disk_give_the_same_weights_and_four_devices_share_them(
    tiny_data: Path,
) -> None:
    pytest.importorskip("jax")
    held, streamed = on_jax(tiny_data, "device", "disk", devices=1)["trainings"]
    four = on_jax(tiny_data, "device", devices=4)
    (shared,) = four["trainings"]
    assert held["losses"] == streamed["losses"]
    assert held["weights"] == streamed["weights"]
    np.testing.assert_allclose(shared["losses"], held["losses"], atol=1e-4)  # sums of float32 in another order
    assert four["summary"].endswith("as 4 devices")
    patches = 192 * 27_648
    assert list(held["held"]) == ["cpu:0"] or len(held["held"]) == 1
    assert patches < sum(held["held"].values()) < 1.1 * patches
    assert len(shared["held"]) == 4
    for held_bytes in shared["held"].values():  # a quarter of the patches, and a copy of the weights
        assert patches / 4 < held_bytes < 1.1 * patches / 4


def test_two_processes_of_two_devices_train_one_network(tiny_data: Path, settings: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {
        **{"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"},
        **{"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo", "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"},
        **{"KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}", "CUDA_VISIBLE_DEVICES": "-1"},
    }
    small = settings.read_text().replace("epochs = 6", "epochs = 1")
    rows = ('{kind="conv", channels=8, kernel=8, stride=8}', '{kind="head", channels=1, kernel=12, bias=true}')
    (tmp_path / "small.toml").write_text(f'{small}\n[network]\nname = "small"\nrows = [{", ".join(rows)}]\n')
    command = [sys.executable, "-m", "histoedge", "train", "--data", str(tiny_data), "--out", str(tmp_path / "run")]
    command += ["--config", str(tmp_path / "small.toml"), "--json"]
    both = [
        subprocess.Popen(
            command,
            env={**os.environ, **together, "KERAS_DISTRIBUTION_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    first, second = (json.loads(out[out.index("{") :]) for out, _ in outputs)
    assert first == second
    assert (tmp_path / "run" / "train.log").read_text().count("epoch 1 of 1: loss") == 1
    assert "CPU, " in (tmp_path / "run" / "train.log").read_text()
    assert not list((tmp_path / "run").glob(".*"))
