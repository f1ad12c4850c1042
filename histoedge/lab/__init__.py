"""The laboratory: the only part of histoedge that reaches TensorFlow, Keras, tf2onnx and the optimisation toolkit."""
