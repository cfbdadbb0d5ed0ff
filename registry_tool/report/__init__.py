"""report: findings and results as text, JSON, SARIF, JUnit, GitHub annotations: one renderer each. Decides nothing."""
