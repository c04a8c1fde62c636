"""The engine: base models on ONNX Runtime, from noisy batches to votes."""
