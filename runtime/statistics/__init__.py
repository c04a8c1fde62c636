"""What votes prove: bounds, budgets, rules. Pure NumPy and SciPy; no file, no engine."""
