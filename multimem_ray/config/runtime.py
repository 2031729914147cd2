"""Scoring, evaluation and report, and what the cluster gives and costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from multimem_ray.config.base import Precision, Section


class ScoringConfig(Section):
    """How samples are embedded and scored."""

    views: int = Field(4, ge=1, description="seeded views per sample the expectation runs over")
    seed: int = Field(0, ge=0, description="seed of the views")
    precision: Precision = Field(
        "fp32", description="what towers compute in; scores are computed in fp32 all the same"
    )
    batch_size: int = Field(
        128, ge=1, description="most samples embedded at once; changes no score"
    )
    partitions: int = Field(
        16, ge=1, description="hive partitions of scores/ and errors/, by hash of the shard"
    )
    partition_by: str | None = Field(
        None,
        pattern=r"^(label|group|json\..+)$",
        description="field that partitions scores/ in the hash's place: label, group, or any of "
        "the sample's json, such as json.source",
    )
    max_partition_values: int = Field(
        1000, ge=1, description="most distinct values of partition_by; more are an error"
    )


class TrainResources(Section):
    """What one bank of models gets, and how many banks run at once."""

    gpus: float = Field(0, ge=0, description="GPUs of a bank")
    cpus: int | Literal["auto"] = Field("auto", description="cores of a bank; auto = what is there")
    models_per_bank: int | Literal["auto"] = Field(
        "auto", description="auto = all, or as many as the memory of a GPU has room for"
    )
    workers_per_bank: int = Field(
        1,
        ge=1,
        description="processes (ranks) that share each batch of a bank, each with its part of the "
        "GPUs; same results but for batch norm, whose statistics are each rank's own, so that "
        "another number is another run",
    )
    concurrent_banks: int | Literal["auto"] = Field(
        "auto",
        description="banks that train at once; auto = as many as the GPUs have room for, else 1",
    )
    decode: Literal["auto", "worker", "ray"] = Field(
        "auto",
        description="where samples are decoded: in the bank's own process, or by Ray Data on the "
        "cluster; auto = in its own process what is small",
    )

    @model_validator(mode="after")
    def _gpu_each(self) -> TrainResources:
        if 0 < self.gpus < self.workers_per_bank > 1:
            raise ValueError(
                f"gpus = {self.gpus:g} for {self.workers_per_bank} workers_per_bank: each needs a "
                "GPU of its own"
            )
        return self


class ScoreResources(Section):
    """What one scoring actor gets, and how many there are."""

    gpus: float = Field(0, ge=0, description="GPUs of an actor")
    cpus: int = Field(
        1,
        ge=1,
        description="cores of an actor: beside a GPU its threads for decoding, else for the towers",
    )
    actors: int | tuple[int, int] | Literal["auto"] = Field(
        "auto", description="number, or [min, max]; auto = as many as the cluster has room for"
    )
    models_on_device: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="reference models on the GPU at a time, the rest take turns; auto = what fits",
    )
    layout: Literal["auto", "fused", "split"] = Field(
        "auto",
        description="fused: an actor decodes and embeds; split: tasks decode on any node for the "
        "actors; auto = split where GPU nodes have few cores and others have some",
    )


class ResourcesConfig(Section):
    """What the cluster gives to each part; changes speed, never results."""

    train: TrainResources = TrainResources()
    score: ScoreResources = ScoreResources()
    cache_dir: str = Field(
        default_factory=lambda: str(Path(tempfile.gettempdir()) / "multimem_ray_cache"),
        description="folder on each training node for decoded shards; emptied after training",
    )
    ray_address: str | None = Field(
        None,
        description="Ray cluster to join; default: a private one on this machine, or the "
        "cluster of the job",
    )


class EvaluationConfig(Section):
    """How models are evaluated on the held-out set; changes no score."""

    ks: list[int] = Field(default_factory=lambda: [1, 5, 10], description="recall at these k")
    templates: list[str] = Field(
        default_factory=lambda: ["{}", "a {}", "a photo of a {}", "the sound of a {}"],
        description="prompts of a label for zero-shot classification; {} is the label",
    )
    class_names: dict[str, str] = Field(
        default_factory=dict,
        description="label: its words in the prompts, such as {'7': seven}; default the label",
    )
    folds: int = Field(5, ge=2, description="folds of the linear probe's cross-validation")
    seed: int = Field(0, ge=0, description="seed of folds and bootstrap")


class ReportConfig(Section):
    """What the report shows."""

    top: int = Field(24, ge=1, description="samples shown with their content")
    title: str | None = Field(
        None, description="heading of the report; default: Memorization audit"
    )
    domains: list[str] = Field(
        [],
        description="fields by whose values the report compares, such as json.source, host or "
        "partition, as `multimem domains --by`; default: what is in catalogue/ already",
    )


class PricesConfig(Section):
    """What the cluster costs; only used to estimate."""

    cpu_hour: float = Field(0.0, ge=0, description="of one core")
    gpu_hour: float = Field(0.0, ge=0, description="of one GPU, without the cores beside it")


class PlanConfig(Section):
    """The cluster that `multimem plan` estimates for."""

    cpus: int | None = Field(None, ge=1, description="cores in all; default those of this machine")
    gpus: int | None = Field(None, ge=0, description="GPUs in all; default those of this machine")
    gpu_gb: float | None = Field(
        None, gt=0, description="memory of one GPU, GB; default that of this machine's"
    )
    prices: PricesConfig = PricesConfig()
    currency: str = Field("USD", description="name of the currency of `prices`")
