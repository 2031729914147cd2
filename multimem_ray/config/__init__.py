"""The configuration: one YAML file, validated, completed from the preset, fingerprinted.

Every key but ``output`` and ``data.shards`` (or ``data.embeddings``) has a default. A preset (a
YAML file in ``multimem_ray/models/presets``) may give defaults for ``model``, ``modalities`` and
``training``; what the user writes wins over it. :func:`multimem_ray.setup.load` makes a *resolved*
configuration of it, in which nothing is left to be looked up, and which is kept with each output.

    base  data  limits  models  runtime    the sections of the file, key by key
    root                                   all of them, and their fingerprint
"""

from multimem_ray.config.base import Fraction, Precision, Section, difference, nearest
from multimem_ray.config.data import (
    CONTENT,
    DataConfig,
    DesignConfig,
    EmbeddingsConfig,
    EmbeddingSet,
    GivenModel,
    HeldOutConfig,
    StorageConfig,
)
from multimem_ray.config.limits import DEFAULT_LIMITS, LimitsConfig
from multimem_ray.config.models import MitigationConfig, ModelConfig, TrainingConfig
from multimem_ray.config.root import Config, digest
from multimem_ray.config.runtime import (
    EvaluationConfig,
    PlanConfig,
    PricesConfig,
    ReportConfig,
    ResourcesConfig,
    ScoreResources,
    ScoringConfig,
    TrainResources,
)

__all__ = [
    "CONTENT",
    "DEFAULT_LIMITS",
    "Config",
    "DataConfig",
    "DesignConfig",
    "EmbeddingSet",
    "EmbeddingsConfig",
    "EvaluationConfig",
    "Fraction",
    "GivenModel",
    "HeldOutConfig",
    "LimitsConfig",
    "MitigationConfig",
    "ModelConfig",
    "PlanConfig",
    "Precision",
    "PricesConfig",
    "ReportConfig",
    "ResourcesConfig",
    "ScoreResources",
    "ScoringConfig",
    "Section",
    "StorageConfig",
    "TrainResources",
    "TrainingConfig",
    "difference",
    "digest",
    "nearest",
]
