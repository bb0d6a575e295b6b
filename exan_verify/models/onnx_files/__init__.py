"""ONNX files, as exporters write them."""
