"""Studies over many small audits, each a command: ``python -m jobs.experiments.<name>``."""
