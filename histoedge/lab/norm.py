"""Batch norm through TensorFlow's fused kernel, which Keras 3 does not use; elsewhere the compiler fuses it."""

from typing import Any

EPSILON = 1e-3  # Keras' default, in Keras 3 and tf_keras alike
MOMENTUM = 0.97  # some hundred steps: follows the weights within an epoch of 10,000 patches


def layer(keras: Any, name: str, *, blocks: int = 1) -> Any:
    """Batch norm (Ioffe and Szegedy 2015) over the last axis; ``blocks`` equal blocks of channels share its weights.

    Names and shapes of weights are those of Keras' own layer, an eighth as many for eight blocks.
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
                answer, mean, variance = _normed(keras, tensor, gamma, beta)
                self._follow(ops.reshape(mean, (blocks, -1)), ops.reshape(variance, (blocks, -1)))
                return answer
            gain = gamma * ops.rsqrt(ops.tile(self.moving_variance, (blocks,)) + EPSILON)
            shift = beta - ops.tile(self.moving_mean, (blocks,)) * gain
            return tensor * ops.cast(gain, tensor.dtype) + ops.cast(shift, tensor.dtype)

        def _follow(self, means: Any, variances: Any) -> None:
            """Move towards the mean and variance of all blocks together."""
            mean = ops.mean(means, axis=0)
            variance = ops.mean(variances + ops.square(means - mean), axis=0)
            for weight, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
                weight.assign(MOMENTUM * weight + (1 - MOMENTUM) * found)

    return Norm()


def _normed(keras: Any, tensor: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """The normalised tensor with the batch's mean and variance (channels,), float32."""
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
    answer = tensor * ops.cast(gain, tensor.dtype) + ops.cast(beta - mean * gain, tensor.dtype)
    return answer, mean, variance
