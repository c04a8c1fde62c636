"""Engines run a bundle's networks: from noisy batches to votes, on a provider of ONNX Runtime or elsewhere."""
