"""Training, compression and export: the only part of histoedge that uses TensorFlow, Keras, tf2onnx and TFMOT."""
