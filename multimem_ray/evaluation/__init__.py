"""How useful a model is: retrieval between modalities, linear probes, zero-shot classification.

On held-out samples, which no reference model trained on, so that every model of a run is judged on
the same data. Pure functions of embeddings, but for :mod:`multimem_ray.evaluation.evaluate`, which
makes them.
"""

from multimem_ray.evaluation.bootstrap import Estimate, bootstrap_mean
from multimem_ray.evaluation.probe import linear_probe
from multimem_ray.evaluation.retrieval import joint_query, retrieval
from multimem_ray.evaluation.zero_shot import zero_shot

__all__ = [
    "Estimate",
    "bootstrap_mean",
    "joint_query",
    "linear_probe",
    "retrieval",
    "zero_shot",
]
