"""What an ONNX file is, told without the onnx package and without running it."""
