"""Kind `sk_regressor` for registry-tool: boosted trees of scikit-learn, as ONNX."""
