"""A page on this machine alone: every scored sample of a run, to be looked at and picked."""
