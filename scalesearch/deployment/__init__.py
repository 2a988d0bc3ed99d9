"""ONNX export, and the backends that compile the exported files."""
