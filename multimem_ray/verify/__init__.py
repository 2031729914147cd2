"""Whether a run's folder is as it was written: every file against what vouches for it."""
