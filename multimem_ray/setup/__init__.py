"""From a YAML file to a run: complete the configuration, find the shards, claim the output.

configuration ──► paths ──► discovery ──► claim
YAML, presets     absolute  shards, fields, label     run.json, or a refusal with the difference
"""

from multimem_ray.setup.claim import open_run, with_models
from multimem_ray.setup.configuration import apply_overrides, load, resolve
from multimem_ray.setup.discovery import detect_fields, inspect, require_shards

__all__ = [
    "apply_overrides",
    "detect_fields",
    "inspect",
    "load",
    "open_run",
    "require_shards",
    "resolve",
    "with_models",
]
