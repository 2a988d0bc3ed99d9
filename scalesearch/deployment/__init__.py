"""ONNX export and the backends that compile it."""
