"""From a configuration to a run: find the shards, settle what is in them, claim the output.

absolute ──► look ──► claim
paths        shards, fields, label     run.json, or a refusal with the difference
"""

from multimem_ray.opening.claim import open_run
from multimem_ray.opening.look import inspect, look, require_shards

__all__ = ["inspect", "look", "open_run", "require_shards"]
