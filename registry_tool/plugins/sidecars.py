"""sidecars.py: what sidecars of single models, and their exporters, call things. Reads none."""

from __future__ import annotations

FEATURES_PORT = "features"  # the feature input of a graph, of any exporter
ENCODER_COLUMN_PREFIX = "encoder_onehot["  # of the columns of the vocabulary, in codec_block_layout
# Fields, under one of these names each: of the features' order, means and deviations.
ORDER_FIELDS = ("feature_order", "features")
MEAN_FIELDS, DEVIATION_FIELDS = ("feature_mean", "input_mean"), ("feature_std", "input_std")
