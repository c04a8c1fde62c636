"""Networks as ONNX graphs: from modules and from files, brought to the contract."""
