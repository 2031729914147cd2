"""multimem_ray: which samples did a multi-modal model memorize?

    import multimem_ray as mm

    config = mm.load_config({"output": "runs/a", "data": {"shards": "shards/*.tar"}})
    mm.audit(config, executor="local")
    mm.open_scores("runs/a").top(20)

A run is a folder: every function does what is missing in it and nothing else. The work is done by
Ray, or with ``executor="local"`` in this process.

    load_config, Config                        a configuration: YAML or a mapping, and overrides
    audit, train, score, report                the whole, and its stages
    plan, embed, evaluate, mitigate            before, beside and after it
    duplicates                                 samples that look or sound alike, as groups
    open_scores, lookup                        what was found, of all samples and of single ones
    similar, export                            samples that a file is like; forms that others read
    register                                   a modality of your own
    agreement, cmc, contrast, …                the metric, on tensors
    Progress, MultiMemError and its children   what is told meanwhile, and what is raised

Nothing is loaded before it is used: importing this takes neither torch nor Ray.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimem_ray.audit import audit, embed, evaluate, mitigate, plan, report, score, train
    from multimem_ray.config import Config
    from multimem_ray.duplicates.search import duplicates
    from multimem_ray.errors import (
        AbsentError,
        ClusterError,
        ConfigError,
        DecodeError,
        DesignError,
        HeldOutError,
        ModelError,
        MultiMemError,
        MultiMemWarning,
        ResumeError,
        SampleError,
        ShardError,
        ShardNotFoundError,
        StorageError,
        TrainingError,
    )
    from multimem_ray.export.write import export
    from multimem_ray.lookup.find import lookup
    from multimem_ray.lookup.similar import similar
    from multimem_ray.metric import (
        Agreement,
        Contrast,
        MeanAccumulator,
        agreement,
        attribution,
        clipmem_alignment,
        cmc,
        contrast,
        normalized,
        pair_cmc,
        recall_hits,
    )
    from multimem_ray.modalities.registry import register
    from multimem_ray.progress import Progress
    from multimem_ray.results.scores import Scores, open_scores
    from multimem_ray.setup import load as load_config

    __version__: str

_HOMES = {
    "audit": "audit embed evaluate mitigate plan report score train",
    "config": "Config",
    "duplicates.search": "duplicates",
    "errors": "AbsentError ClusterError ConfigError DecodeError DesignError HeldOutError "
    "ModelError MultiMemError MultiMemWarning ResumeError SampleError ShardError "
    "ShardNotFoundError StorageError TrainingError",
    "export.write": "export",
    "lookup.find": "lookup",
    "lookup.similar": "similar",
    "metric": "Agreement Contrast MeanAccumulator agreement attribution clipmem_alignment cmc "
    "contrast normalized pair_cmc recall_hits",
    "modalities.registry": "register",
    "progress": "Progress",
    "results.scores": "Scores open_scores",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AbsentError",
    "Agreement",
    "ClusterError",
    "Config",
    "ConfigError",
    "Contrast",
    "DecodeError",
    "DesignError",
    "HeldOutError",
    "MeanAccumulator",
    "ModelError",
    "MultiMemError",
    "MultiMemWarning",
    "Progress",
    "ResumeError",
    "SampleError",
    "Scores",
    "ShardError",
    "ShardNotFoundError",
    "StorageError",
    "TrainingError",
    "__version__",
    "agreement",
    "attribution",
    "audit",
    "clipmem_alignment",
    "cmc",
    "contrast",
    "duplicates",
    "embed",
    "evaluate",
    "export",
    "load_config",
    "lookup",
    "mitigate",
    "normalized",
    "open_scores",
    "pair_cmc",
    "plan",
    "recall_hits",
    "register",
    "report",
    "score",
    "similar",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("multimem-ray")
    if name == "load_config":
        return importlib.import_module("multimem_ray.setup").load
    if name not in _HOME:
        raise AttributeError(f"module 'multimem_ray' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"multimem_ray.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]


class _Package(ModuleType):
    """Importing a module makes it an attribute of its package; ``audit`` and ``report`` are both.

    Whoever asks the package gets the function; ``from multimem_ray.audit import …`` goes on as it
    does everywhere.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
