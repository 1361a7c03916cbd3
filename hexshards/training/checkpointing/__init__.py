"""training/checkpointing."""
