"""Batch norm with TensorFlow's fused kernel, which Keras 3 does not use; on other backends the compiler fuses it."""

from typing import Any

EPSILON = 1e-3  # the default of Keras 3 and of tf_keras
MOMENTUM = 0.97  # about a hundred steps: the averages follow the weights within an epoch of 10,000 patches


def layer(keras: Any, name: str, *, blocks: int = 1) -> Any:
    """Return a batch norm layer (Ioffe and Szegedy 2015) over the last axis.

    The weights have the names and shapes of Keras' own layer, with ``channels / blocks`` values each.

    Args:
        keras: Keras 3 or ``tf_keras``.
        name: name of the layer.
        blocks: number of equal channel blocks that share the weights.
    """
    ops = keras.ops

    class Norm(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name=name)

        def build(self, shape: tuple[int, ...]) -> None:
            kinds = (("gamma", "ones"), ("beta", "zeros"), ("moving_mean", "zeros"), ("moving_variance", "ones"))
            for kind, start in kinds:
                weight = self.add_weight(
                    shape=(shape[-1] // blocks,),
                    initializer=start,
                    trainable=kind in ("gamma", "beta"),
                    dtype="float32",
                    name=kind,
                )
                setattr(self, kind, weight)

        def call(self, tensor: Any, training: bool = False) -> Any:
            gamma, beta = (ops.tile(weight, (blocks,)) for weight in (self.gamma, self.beta))
            if training:
                output, mean, variance = _normalise(keras, tensor, gamma, beta)
                self._update_averages(ops.reshape(mean, (blocks, -1)), ops.reshape(variance, (blocks, -1)))
                return output
            gain = gamma * ops.rsqrt(ops.tile(self.moving_variance, (blocks,)) + EPSILON)
            shift = beta - ops.tile(self.moving_mean, (blocks,)) * gain
            return tensor * ops.cast(gain, tensor.dtype) + ops.cast(shift, tensor.dtype)

        def _update_averages(self, means: Any, variances: Any) -> None:
            """Update the moving averages with the mean and variance over all blocks."""
            mean = ops.mean(means, axis=0)
            variance = ops.mean(variances + ops.square(means - mean), axis=0)
            for weight, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                weight.assign(MOMENTUM * weight + (1 - MOMENTUM) * value)

    return Norm()


def _normalise(keras: Any, tensor: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """Return the normalised tensor, and the batch's mean and variance, float32 (channels,)."""
    ops = keras.ops
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        fused = tensorflow.raw_ops.FusedBatchNormV3(
            x=tensor,
            scale=gamma,
            offset=beta,
            mean=tensorflow.zeros([0]),
            variance=tensorflow.zeros([0]),
            epsilon=EPSILON,
            is_training=True,
        )
        return fused.y, fused.batch_mean, fused.batch_variance
    mean, variance = ops.moments(ops.cast(tensor, "float32"), axes=(0, 1, 2))
    gain = gamma * ops.rsqrt(variance + EPSILON)
    output = tensor * ops.cast(gain, tensor.dtype) + ops.cast(beta - mean * gain, tensor.dtype)
    return output, mean, variance
