"""Keras models as people have them, each of another shape, with weights and batch norm statistics that are not trivial."""

from collections.abc import Callable
from typing import Any

import numpy as np


def _bn(keras: Any, x: Any, activation: str = "relu") -> Any:
    return keras.layers.Activation(activation)(keras.layers.BatchNormalization()(x))


def plain(keras: Any) -> Any:
    L = keras.layers
    layers = [keras.Input((96, 96, 3)), L.Rescaling(1 / 255), L.RandomFlip(), L.Conv2D(8, 5, 4, activation="relu")]
    layers += [L.Conv2D(12, 3, use_bias=False), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D(2), L.Dropout(0.3)]
    return keras.Sequential([*layers, L.Flatten(), L.Dense(16, activation="relu"), L.Dense(1, activation="sigmoid")])


def same_padding(keras: Any) -> Any:
    L = keras.layers
    inputs = x = keras.Input((96, 96, 3))
    for channels, stride in ((8, 2), (16, 2), (24, 1)):
        x = _bn(keras, L.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x))
    return keras.Model(inputs, L.Dense(1, activation="sigmoid")(L.GlobalAveragePooling2D()(x)))


def residual(keras: Any) -> Any:
    L = keras.layers
    inputs = keras.Input((96, 96, 3))
    x = _bn(keras, L.Conv2D(16, 7, 4, padding="same")(inputs))
    for _ in range(2):
        y = _bn(keras, L.Conv2D(16, 3, padding="same")(x))
        y = L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(y))
        x = L.ReLU()(L.Add()([x, y]))
    shortcut = L.Conv2D(24, 1, 2)(x)
    y = L.Conv2D(24, 3, 2, padding="same")(x)
    x = L.Activation("relu")(L.Add()([shortcut, y]))
    return keras.Model(inputs, L.Dense(1)(L.GlobalAveragePooling2D()(x)))


def mobilenet(keras: Any) -> Any:
    inputs = keras.Input((96, 96, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    base = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, include_top=False, pooling="avg")
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.2)(base(x))))


def separable(keras: Any) -> Any:
    L = keras.layers
    layers = [keras.Input((96, 96, 3)), L.SeparableConv2D(8, 3, 2, activation="relu"), L.SeparableConv2D(16, 3, 2)]
    layers += [L.BatchNormalization(), L.ReLU(), L.DepthwiseConv2D(3, dilation_rate=2), L.AveragePooling2D(2)]
    return keras.Sequential([*layers, L.GlobalMaxPooling2D(), L.Dense(1, activation="sigmoid")])


def dense_connections(keras: Any) -> Any:
    L = keras.layers
    inputs = keras.Input((96, 96, 3))
    x = L.MaxPooling2D(3, 2, padding="same")(_bn(keras, L.Conv2D(8, 3, 2, padding="same")(inputs)))
    for _ in range(3):
        y = L.Conv2D(8, 3, padding="same", use_bias=False)(_bn(keras, x))
        x = L.Concatenate()([x, y])
    x = L.AveragePooling2D(2)(L.Conv2D(16, 1)(_bn(keras, x)))
    return keras.Model(inputs, L.Dense(1, activation="sigmoid")(L.GlobalAveragePooling2D()(_bn(keras, x))))


def normalised(keras: Any) -> Any:
    L = keras.layers
    normalise = L.Normalization()
    normalise.adapt(np.random.default_rng(5).normal([180, 130, 170], [40, 50, 30], (64, 8, 8, 3)).astype(np.float32))
    layers = [keras.Input((96, 96, 3)), normalise, L.Conv2D(8, 3, 2, padding="same", activation="relu")]
    return keras.Sequential([*layers, L.Conv2D(8, 3, 2, activation="relu"), L.Flatten(), L.Dense(1, "sigmoid")])


def two_way(keras: Any) -> Any:
    L = keras.layers
    layers = [keras.Input((96, 96, 3)), L.Conv2D(8, 4, 4), L.LeakyReLU(), L.MaxPooling2D(4), L.Flatten()]
    return keras.Sequential([*layers, L.Dense(8, "relu"), L.Dense(2), L.Softmax()])


def small_patches(keras: Any) -> Any:
    L = keras.layers
    inner = keras.Sequential([L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(2)], name="block")
    inputs = keras.Input((64, 64, 3))
    x = inner(L.Rescaling(1 / 255)(inputs))
    x = L.Conv2D(12, 3, 2, activation="relu")(x)
    return keras.Model(inputs, L.Dense(1, activation="sigmoid")(L.GlobalAveragePooling2D()(x)))


def large_patches(keras: Any) -> Any:
    L = keras.layers
    layers = [keras.Input((224, 224, 3)), L.Conv2D(8, 7, 4, padding="same", activation="relu"), L.MaxPooling2D(2)]
    layers += [L.Conv2D(16, 3, 2, padding="same", activation="relu"), L.Conv2D(16, 3, activation="relu")]
    return keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(2, activation="softmax")])


def dilated(keras: Any) -> Any:
    L = keras.layers
    layers = [keras.Input((96, 96, 3)), L.Conv2D(8, 4, 4, activation="relu"), L.Conv2D(8, 3, dilation_rate=2)]
    layers += [L.BatchNormalization(), L.ReLU(), L.Conv2D(8, 3, dilation_rate=4, activation="relu", padding="same")]
    return keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(1, activation="sigmoid")])


def hard_swish(keras: Any) -> Any:
    L = keras.layers
    inputs = keras.Input((96, 96, 3))
    x = _bn(keras, L.Conv2D(8, 3, 2, padding="same", use_bias=False)(inputs), "hard_swish")
    x = _bn(keras, L.DepthwiseConv2D(5, 2, padding="same", use_bias=False)(x), "hard_swish")
    x = L.Conv2D(16, 1, activation="swish")(x)
    x = L.Conv2D(16, 1, activation="relu6")(x)
    return keras.Model(inputs, L.Dense(1, activation="sigmoid")(L.GlobalAveragePooling2D()(x)))


MODELS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "plain": (plain, "0..255"),
    "same_padding": (same_padding, "0..1"),
    "residual": (residual, "-1..1"),
    "mobilenet": (mobilenet, "0..255"),
    "separable": (separable, "0..1"),
    "dense_connections": (dense_connections, "0..1"),
    "normalised": (normalised, "0..255"),
    "two_way": (two_way, "0..1"),
    "small_patches": (small_patches, "0..255"),
    "large_patches": (large_patches, "0..1"),
    "dilated": (dilated, "0..1"),
    "hard_swish": (hard_swish, "0..1"),
}
"""Builder and pixel range of each model."""


def build(keras: Any, name: str) -> Any:
    """Return a model with a seed of its own; batch norm has statistics as after a training."""
    keras.utils.set_random_seed(len(name))
    model = MODELS[name][0](keras)
    random = np.random.default_rng(len(name))
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            spreads = random.uniform(0.5, 1.5, shape), random.normal(0, 0.2, shape), random.normal(0, 0.2, shape)
            layer.set_weights([*spreads, random.uniform(0.5, 2, shape)])
    return model
