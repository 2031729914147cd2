"""The configuration: one YAML file, validated, completed from the preset, fingerprinted.

Every key but ``output`` and ``data.shards`` (or ``data.embeddings``) has a default. A preset (a
YAML file in ``multimem_ray/models/presets``) may give defaults for ``model``, ``modalities`` and
``training``; what the user writes wins over it. ``load`` returns the *resolved* configuration, in
which nothing is left to be looked up, and which is stored with every output.

    section  data  models  work    the sections of the file, key by key
    audit                          all of them, and their fingerprint
    resolve                        YAML, presets and overrides
"""

from multimem_ray.config.audit import Config, digest
from multimem_ray.config.data import (
    DataConfig,
    DesignConfig,
    EmbeddingsConfig,
    EmbeddingSet,
    GivenModel,
    HeldOutConfig,
    StorageConfig,
)
from multimem_ray.config.models import MitigationConfig, ModelConfig, TrainingConfig
from multimem_ray.config.resolve import apply_overrides, load, resolve
from multimem_ray.config.section import Fraction, Precision, Section
from multimem_ray.config.words import difference, nearest
from multimem_ray.config.work import (
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
    "Config",
    "DataConfig",
    "DesignConfig",
    "EmbeddingSet",
    "EmbeddingsConfig",
    "EvaluationConfig",
    "Fraction",
    "GivenModel",
    "HeldOutConfig",
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
    "apply_overrides",
    "difference",
    "digest",
    "load",
    "nearest",
    "resolve",
]
