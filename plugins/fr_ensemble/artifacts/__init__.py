"""artifacts: recipe, ONNX graphs, manifest and runtime of an ensemble."""
