"""All sections together, and the fingerprint of what scores depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import (
    Field,
    model_validator,
)

from multimem_ray.config.base import Section
from multimem_ray.config.data import DataConfig, DesignConfig, HeldOutConfig, StorageConfig
from multimem_ray.config.limits import DEFAULT_LIMITS
from multimem_ray.config.models import MitigationConfig, ModelConfig, TrainingConfig
from multimem_ray.config.runtime import (
    EvaluationConfig,
    PlanConfig,
    ReportConfig,
    ResourcesConfig,
    ScoringConfig,
)


class Config(Section):
    """One audit."""

    output: str = Field(description="folder or s3:// prefix that receives everything")
    data: DataConfig
    held_out: HeldOutConfig = HeldOutConfig()
    design: DesignConfig = DesignConfig()
    model: ModelConfig = ModelConfig()
    modalities: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="per modality: decode and view settings"
    )
    training: TrainingConfig = TrainingConfig()
    mitigation: MitigationConfig = MitigationConfig()
    scoring: ScoringConfig = ScoringConfig()
    resources: ResourcesConfig = ResourcesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()
    storage: StorageConfig = StorageConfig()
    plan: PlanConfig = PlanConfig()

    @model_validator(mode="after")
    def _combinations(self) -> Config:
        if self.held_out.shards is None and self.held_out.fraction == 0:
            raise ValueError("held_out.fraction is 0 and held_out.shards is not set: H is empty")
        if self.design.independent_fraction is not None and self.design.kind != "candidate":
            raise ValueError(
                "design.independent_fraction is the share of S_I: set design.kind: candidate"
            )
        if self.scoring.partition_by == "group" and not self.design.groups_by_field:
            raise ValueError("scoring.partition_by = group, and design.group is not a field")
        candidate, independent = self.design.candidate_shares
        if self.design.kind == "candidate" and candidate + independent > 1:
            raise ValueError(
                f"design.candidate_fraction = {candidate} and S_I of {independent}: they are "
                "disjoint, so use at most 1 together"
            )
        target = self.design.target
        if target is not None and target.members == "all" and self.held_out.shards is None:
            raise ValueError(
                "design.target trained on all of data.shards, so nothing is left that neither it "
                "nor the references saw: name other shards in held_out.shards"
            )
        trains = self.design.kind != "given" and self.data.embeddings is None
        if self.mitigation.kind != "none" and not trains:
            raise ValueError("mitigation: with given models or stored embeddings none is trained")
        if self.mitigation.kind != "none" and self.resources.train.workers_per_bank > 1:
            raise ValueError(
                "mitigation treats samples one by one, which a bank of one worker does: set "
                "resources.train.workers_per_bank to 1"
            )
        paired = self.design.kind in {"complementary_halves", "candidate"}
        if paired and self.design.models % 2:
            raise ValueError(
                f"design.models = {self.design.models}: {self.design.kind} needs an even number"
            )
        if self.design.kind == "three_folds" and self.design.models % 3:
            raise ValueError(
                f"design.models = {self.design.models}: three_folds needs a multiple of three"
            )
        if self.design.draw and self.design.kind != "complementary_halves":
            raise ValueError("design.draw is for design.kind: complementary_halves")
        self._check_proxy(trains)
        if self.design.grows and (
            self.design.target is not None
            or self.data.embeddings is not None
            or self.mitigation.kind != "none"
        ):
            raise ValueError(
                "design.models: auto is for audits that train reference models to compare them "
                "with one another; with a target, stored embeddings or a mitigation give a number"
            )
        if self.training.shared_init and self.design.kind == "leave_subset_out":
            raise ValueError(
                "training.shared_init: in leave_subset_out all models are compared with one "
                "another, and one start for all of them makes every score worse"
            )
        return self

    def _check_proxy(self, trains: bool) -> None:
        design = self.design
        if design.proxy is None:
            return
        if design.kind != "complementary_halves" or design.target is not None or not trains:
            raise ValueError(
                "design.proxy is for design.kind: complementary_halves of models that this run "
                "trains, without a target"
            )
        if self.mitigation.kind != "none":
            raise ValueError("design.proxy: mitigation changes the models, and has no proxies")
        if design.models < 4 or design.proxy_models % 2:
            raise ValueError(
                f"design.proxy blends two pairs of the full model or more (design.models = "
                f"{design.models}) with pairs of the cheaper one (design.proxy_models = "
                f"{design.proxy_models})"
            )

    @property
    def shares_init(self) -> bool:
        """Whether models that are compared with one another start from the same weights."""
        shared = self.training.shared_init
        return self.design.kind == "three_folds" if shared is None else shared

    def fingerprint(self) -> str:
        """Sixteen hex digits that change with whatever could change a score.

        Resources, the report, storage, batch size in scoring and the place of the output do not
        enter: they may differ between a run and its resumption.
        """
        return digest(self.score_relevant())

    def score_relevant(self) -> dict[str, Any]:
        """The part of the configuration that the scores depend on."""
        kept = self.model_dump(
            mode="json",
            exclude={"output", "resources", "evaluation", "report", "storage", "plan"},
        )
        # Which shards there are is told by what was found, not by how the list was written.
        del kept["data"]["shards"], kept["held_out"]["shards"]
        stored = kept["data"].pop("embeddings")
        if stored is not None:
            # Which files is told by what was found; who trained on what, by the design.
            del stored["run"], stored["models"]
            kept["data"]["embeddings"] = stored
        # A sample beyond a limit is not trained on: limits count, where they are not the default.
        if self.data.limits == DEFAULT_LIMITS:
            del kept["data"]["limits"]
        # Consent changes what is loaded at all, never a score.
        del kept["data"]["planted"], kept["model"]["allow"]
        for name in ("batch_size", "partitions", "partition_by", "max_partition_values"):
            del kept["scoring"][name]
        # A recipe is told by the keys that it sets.
        for name in ("recipe", "checkpoint_every_s", "cache_gb", "held_out_samples", "trackers"):
            del kept["training"][name]
        # Outputs from before these keys are those of their defaults.
        del kept["training"]["stop_at"]
        if self.training.trained_epochs < self.training.epochs:
            kept["training"]["trained_epochs"] = self.training.trained_epochs
        if self.shares_init == (self.design.kind == "three_folds"):
            del kept["training"]["shared_init"]
        else:
            kept["training"]["shared_init"] = self.shares_init
        if self.resources.train.workers_per_bank > 1:
            # Batch norm takes its statistics from what one worker has of a batch.
            workers = self.resources.train.workers_per_bank
            kept["resources"] = {"train": {"workers_per_bank": workers}}
        if self.design.group is not None and self.design.group.endswith(".parquet"):
            kept["design"]["group"] = "table"  # which one is told by its content
        if self.design.candidate_shares[0] == self.design.candidate_shares[1]:
            del kept["design"]["independent_fraction"]
        first = () if self.design.draw else ("draw",)
        beside = ("proxy", "proxy_models")  # another run's, which leaves these scores as they are
        for name in ("reliability", "budget_hours", "max_models", *first, *beside):
            del kept["design"][name]  # how a number of models came about, and a default of later
        # Outputs from before there was a mitigation are those of trainings without.
        if self.mitigation.kind == "none":
            del kept["mitigation"]
        return kept


def digest(value: Any) -> str:
    """Sixteen hex digits of a JSON-serialisable value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
