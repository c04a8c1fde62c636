"""The bundle: a folder with a manifest and ONNX files, the contract between export and runtime."""
