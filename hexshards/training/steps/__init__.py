"""training/steps."""
