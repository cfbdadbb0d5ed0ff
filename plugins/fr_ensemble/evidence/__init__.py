"""evidence: OOF predictions and what they show: metrics, intervals, comparisons."""
