"""Commands that answer questions about a run, one module for each; :mod:`multimem_ray.cli` has
them."""
