"""One training loop with its schedules, checkpoints and records. It names no model."""
