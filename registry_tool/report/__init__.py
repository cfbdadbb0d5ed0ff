"""report: findings and results as text and JSON, one renderer each. Decides nothing."""
