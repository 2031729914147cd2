"""What is audited: where it lies, what is held out, who trained on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from multimem_ray.config.base import Fraction, Section
from multimem_ray.config.limits import DEFAULT_LIMITS, LimitsConfig

CONTENT = "content"
"""Value of ``design.group``: samples of the same content belong together."""

MOST_MODELS, RELIABLE = 32, 0.8
"""What ``design.models: auto`` is bounded by, and aims at, unless it is said otherwise."""


class StorageConfig(Section):
    """How remote storage is reached. Credentials come from the usual AWS sources."""

    endpoint_url: str | None = Field(None, description="S3-compatible endpoint; default AWS")
    anonymous: bool = Field(False, description="read public buckets without credentials")
    retries: int = Field(8, ge=0, description="attempts after the first, with growing pauses")
    timeout_s: float = Field(60.0, gt=0, description="connect and read time-out of one request")
    checksums: Literal["when_required", "when_supported"] = Field(
        "when_required",
        description="checksums beyond those that a request must have; stores other than AWS may "
        "refuse them",
    )
    requester_pays: bool = Field(False, description="pay for requests to buckets that ask for it")
    addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="where the bucket's name stands in a URL: in the path, or in the host"
    )


class EmbeddingSet(Section):
    """What one model made of the samples: Parquet files, or one array for each modality."""

    files: str | list[str] | None = Field(
        None, description="Parquet with a key and a list of numbers per modality: folder, glob, URL"
    )
    arrays: dict[str, str] = Field(
        default_factory=dict,
        description="instead of files, modality: .npy of shape (N, d) or (N, V, d)",
    )
    keys: str | None = Field(
        None,
        description="with arrays, the N keys: .npy of text, .txt with one on each line, .parquet",
    )
    members: str | None = Field(
        None,
        description="what the model trained on, as in design.given: all; none; recorded (the "
        "membership.json in the folder of the files); or a file of keys",
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, raw: Any) -> Any:
        return raw if isinstance(raw, Mapping) else {"files": raw}

    @model_validator(mode="after")
    def _one_of(self) -> EmbeddingSet:
        if bool(self.files) == bool(self.arrays):
            raise ValueError("give either files (Parquet) or arrays (.npy)")
        if bool(self.arrays) != bool(self.keys):
            raise ValueError("arrays need keys, which say whose each row is; files have a column")
        return self


class EmbeddingsConfig(Section):
    """Embeddings that somebody kept, in the place of shards and models."""

    run: str | None = Field(
        None,
        description="output of a run that `multimem embed` completed; design, held-out set and "
        "models are taken from there",
    )
    models: list[EmbeddingSet] = Field(
        default_factory=list, description="what each model made of the samples; joined by key"
    )
    key: str = Field("key", description="column with the key")
    views: int = Field(
        1,
        ge=1,
        description="views in each list of numbers, one after the other; files of ours tell",
    )
    held_out: str | None = Field(
        None,
        description="column of true and false, or a file of keys (of groups); default: the column "
        "held_out if there is one, else held_out.fraction of what no model trained on",
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, raw: Any) -> Any:
        return {"run": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _one_of(self) -> EmbeddingsConfig:
        if not self.run and len(self.models) < 2:
            raise ValueError("name a run, or the embeddings of at least two models")
        return self


class DataConfig(Section):
    """Which shards, and what in them is which modality."""

    embeddings: EmbeddingsConfig | None = Field(
        None, description="score stored embeddings: no shards, no models"
    )
    # Required without embeddings, see below; not here, so that its type stays what shards are.
    shards: str | list[str] = Field(
        default=cast("str", None),
        validate_default=True,
        description="paths or URLs: braces, globs, @file lists, several joined by '::'",
    )
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="modality: member extensions by preference ('jpg;jpeg;png;webp') or a field of "
        "the sample's JSON ('json.caption'); of embeddings, a column; empty = found and announced",
    )
    label: str | None = Field(
        None,
        description="field with the class label, such as json.class_label (of embeddings, a "
        "column); for summaries",
    )
    planted: str | None = Field(
        None, description="Parquet with the truth about planted misalignment; see `multimem plant`"
    )
    plugins: list[str] = Field(
        default_factory=list, description="modules to import that register further modalities"
    )
    limits: LimitsConfig = DEFAULT_LIMITS

    @field_validator("shards", mode="before")
    @classmethod
    def _needed(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("embeddings") is not None:
            if value:
                raise ValueError("data.embeddings takes the place of shards; give one of the two")
            return []
        if value is None:
            raise PydanticCustomError("missing", "Field required")
        return value

    @field_validator("shards")
    @classmethod
    def _not_empty(cls, value: str | list[str], info: ValidationInfo) -> str | list[str]:
        if info.data.get("embeddings") is not None:
            return value
        if not value or (isinstance(value, list) and not all(value)):
            raise ValueError("name at least one shard")
        return value


class HeldOutConfig(Section):
    """The held-out set H, which no model trains on."""

    fraction: Fraction = Field(0.05, description="share of samples (of groups) held out, by hash")
    max_samples: int = Field(5000, ge=2, description="most samples that enter the mean vectors")
    shards: str | list[str] | None = Field(
        None, description="use these shards as H instead of a fraction (out-of-distribution)"
    )
    balance: str | None = Field(
        None, description="field by whose values H is balanced, such as json.class_label"
    )


class GivenModel(Section):
    """A model that was trained elsewhere, and on what."""

    checkpoint: str = Field(
        description="folder of a reference model or its model.safetensors, or an adapter's name "
        "such as open_clip:ARCH/FILE"
    )
    members: str = Field(
        "recorded",
        description="what it trained on: all; none; recorded = the rule in the folder's "
        "membership.json; or a file of keys (of groups): Parquet with a column 'key', or text "
        "with one on each line",
    )


class DesignConfig(Section):
    """Which model trains on which sample."""

    kind: Literal[
        "complementary_halves", "three_folds", "leave_subset_out", "candidate", "given"
    ] = Field(
        "complementary_halves",
        description="which models train on a sample: one of each pair; two of each three; all but "
        "one; the papers' S_S, S_C and S_I; or models of your own, listed in `given`",
    )
    models: int = Field(
        4,
        ge=2,
        description="number of reference models; auto: four (six in three_folds), and more until "
        "the ranking is as reliable as `reliability` asks, or budget or bound is reached",
    )
    reliability: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="auto: correlation asked for between the ranking and that of as many new "
        "models; default 0.8 without a budget",
    )
    budget_hours: float | None = Field(
        None,
        gt=0.0,
        description="auto: most hours that the stages of the run may take, those before a "
        "resumption included; the first four models are not asked",
    )
    max_models: int | None = Field(None, ge=4, description="auto: most models; default 32")
    given: list[GivenModel] = Field(
        default_factory=list, description="given: the models to compare; none is trained"
    )
    target: GivenModel | None = Field(
        None,
        description="your own trained model, scored against the reference models that did not see "
        "a sample; their gap on samples that neither saw is measured and subtracted",
    )
    seed: int = Field(0, ge=0, description="of the hash that decides membership and H")
    draw: int = Field(
        0,
        ge=0,
        description="complementary_halves: another number gives other halves with the same H, as "
        "an audit by a cheaper model needs that is to be blended with this one",
    )
    proxy: str | None = Field(
        None,
        description="complementary_halves: audit by a cheaper model, too, and blend its scores "
        "with those of the full one by what both agree in: a preset, or smaller, which is the "
        "model of this run with towers half as wide; in the folder proxy of the output",
    )
    proxy_models: int = Field(8, ge=4, description="number of the cheaper models; even")
    group: str | None = Field(
        CONTENT,
        description="what keeps samples together, so that all of them are left out together: "
        "content (exact copies of all modalities), key (each sample alone), a field such as "
        "json.source, or a table of groups (a .parquet with the columns key and group, and shard "
        "where keys repeat); an output that was begun by key goes on by key",
    )
    candidate_fraction: Fraction = Field(0.1, description="candidate: share of S_C")
    independent_fraction: Fraction | None = Field(
        None,
        description="candidate: share of S_I; default that of S_C, so that f and g train on "
        "equally much, without which the score is biased",
    )
    pool: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="share of samples (of groups), by hash, that may be trained on at all; those "
        "outside get cmc_out and no MultiMem",
    )
    pool_shards: int | None = Field(
        None, ge=1, description="train on this many shards only, drawn by hash; default all"
    )

    @property
    def groups_by_field(self) -> bool:
        """Whether samples are grouped by a field of theirs."""
        group = self.group
        return group not in (None, CONTENT) and not str(group).endswith(".parquet")

    @property
    def candidate_shares(self) -> tuple[float, float]:
        """Shares of S_C and of S_I."""
        independent = self.independent_fraction
        return self.candidate_fraction, (
            self.candidate_fraction if independent is None else independent
        )

    @field_validator("group")
    @classmethod
    def _by_key(cls, value: str | None) -> str | None:
        # As outputs from before there was another default have it.
        return None if value == "key" else value

    @property
    def grows(self) -> bool:
        """Whether models are added until the ranking is as reliable as asked."""
        return self.max_models is not None

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("models") != "auto":
            return raw
        kind = raw.get("kind", "complementary_halves")
        if kind in {"leave_subset_out", "given"}:
            raise ValueError(f"models: auto adds models to a run, which {kind} does not allow")
        grown = {
            **raw,
            "models": 6 if kind == "three_folds" else 4,
            "max_models": raw.get("max_models") or MOST_MODELS,
        }
        if raw.get("reliability") is None and raw.get("budget_hours") is None:
            grown["reliability"] = RELIABLE
        return grown

    @model_validator(mode="after")
    def _for_auto(self) -> DesignConfig:
        for name in ("reliability", "budget_hours"):
            if getattr(self, name) is not None and not self.grows:
                raise ValueError(f"design.{name} goes with design.models: auto")
        if self.grows and self.reliability is None and self.budget_hours is None:
            raise ValueError("design.max_models goes with design.models: auto")
        return self

    @model_validator(mode="before")
    @classmethod
    def _count(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and raw.get("kind") == "given":
            given = raw.get("given") or []
            if len(given) < 2:
                raise ValueError("given: name at least two models in design.given")
            return {**raw, "models": len(given)}
        if isinstance(raw, Mapping) and raw.get("given"):
            raise ValueError("design.given is for design.kind: given")
        return raw
