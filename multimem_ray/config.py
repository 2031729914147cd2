"""The configuration: one YAML file, validated, completed from the preset, fingerprinted.

Every key but ``output`` and ``data.shards`` (or ``data.embeddings``) has a default. A preset (a
YAML file in ``multimem_ray/models/presets``) may give defaults for ``model``, ``modalities`` and
``training``; what the user writes wins over it. ``load`` returns the *resolved* configuration, in
which nothing is left to be looked up, and which is stored with every output.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from multimem_ray.errors import ConfigError


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Precision = Literal["fp32", "bf16", "fp16"]


class StorageConfig(Section):
    """How remote storage is reached. Credentials come from the usual AWS sources."""

    endpoint_url: str | None = Field(None, description="S3-compatible endpoint; default AWS")
    anonymous: bool = Field(False, description="read public buckets without credentials")
    retries: int = Field(8, ge=0, description="attempts after the first, with growing pauses")
    timeout_s: float = Field(60.0, gt=0, description="connect and read time-out of one request")


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

    kind: Literal["complementary_halves", "leave_subset_out", "candidate", "given"] = (
        "complementary_halves"
    )
    models: int = Field(4, ge=2, description="number of reference models")
    given: list[GivenModel] = Field(
        default_factory=list, description="given: the models to compare; none is trained"
    )
    target: GivenModel | None = Field(
        None,
        description="your own trained model, scored against the reference models that did not see "
        "a sample; their gap on samples that neither saw is measured and subtracted",
    )
    seed: int = Field(0, ge=0)
    group: str | None = Field(
        None, description="field that keeps samples together, such as json.source; default the key"
    )
    candidate_fraction: Fraction = Field(0.1, description="candidate: share of S_C and of S_I each")
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


class ModelConfig(Section):
    """Architecture of every reference model."""

    preset: str | None = Field(
        "tiny",
        description="name of a preset: see `multimem config presets`; none with an adapter, unless "
        "its training is wanted",
    )
    adapter: str | None = Field(
        None,
        description="your own model: open_clip:ARCH[/TAG or file], hf:ORG/NAME or hf:FOLDER, "
        "local:FOLDER, plugin:package.module:factory",
    )
    init: str | None = Field(
        None,
        description="weights that every reference model starts from: the folder of a reference "
        "model, or its model.safetensors; default: random, or the adapter's",
    )
    freeze: list[str] = Field(
        default_factory=list,
        description="not trained: modalities, or patterns of parameter names such as "
        "'towers.text.*' and 'log_scales'",
    )
    modalities: list[str] = Field(
        default_factory=list,
        description="what the model embeds; the shards must have all of it, and what else they "
        "have is not used; empty = whatever is in the shards",
    )
    dim: int = Field(64, ge=2, description="embedding dimension")
    towers: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="per modality: kind of tower and its settings"
    )
    logit_scale: float = Field(14.285714, gt=0, description="initial logit scale of each pair")
    logit_scale_max: float = Field(100.0, gt=0)


class TrainingConfig(Section):
    """How each reference model is trained."""

    epochs: int = Field(120, ge=1)
    batch_size: int = Field(128, ge=2, description="samples per step of each model")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="samples that a tower embeds at once, where a batch needs too much memory; the "
        "loss is still that of the whole batch; default all",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd is with Nesterov momentum")
    lr: float = Field(1.0e-3, gt=0)
    momentum: float = Field(0.9, gt=0, lt=1, description="sgd: Nesterov momentum")
    betas: tuple[float, float] = Field((0.9, 0.999), description="adamw: decay of its two means")
    eps: float = Field(1.0e-8, gt=0, description="adamw: added to the denominator")
    schedule: Literal["cosine", "exponential", "constant"] = Field(
        "cosine", description="of the learning rate, after the warm-up"
    )
    gamma: float = Field(0.96, gt=0, le=1, description="exponential: factor of each epoch")
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float | None = Field(1.0, gt=0)
    precision: Precision = Field(
        "fp32", description="what towers compute in; weights and the loss are always fp32"
    )
    compile: bool = Field(
        False,
        description="torch.compile the towers: takes a compiler and minutes at the start, and on a "
        "CPU models then step one after the other; for large towers and long trainings",
    )
    seed: int = Field(0, ge=0)
    augment: bool = Field(True, description="train on random views; false = on clean samples")
    noise: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="modality: Gaussian noise on its embeddings in training; expected norm of the "
        "noise, where an embedding has norm 1",
    )
    held_out_samples: int = Field(
        128, ge=0, description="held-out samples whose retrieval history.jsonl tells; 0 = none"
    )
    trackers: list[str] = Field(
        default_factory=list,
        description="where history.jsonl is shown as well: tensorboard, mlflow, wandb (extras of "
        "these names), or your own as package.module:function",
    )
    shuffle_buffer: int = Field(4096, ge=1, description="samples shuffled together in memory")
    cache_gb: float = Field(
        20.0, ge=0, description="most of a node's disk for decoded shards; 0 = decode every epoch"
    )
    checkpoint_every_s: float = Field(
        20.0, ge=0, description="seconds between checkpoints, written at the end of an epoch"
    )


class MitigationConfig(Section):
    """Training that memorizes less. Every model of the design is trained by it, see
    :mod:`multimem_ray.mitigation`."""

    kind: Literal["none", "in_training", "post_training"] = Field(
        "none",
        description="in_training: treat chosen samples while the models train; post_training: "
        "treat them while the finished models of `references` are fine-tuned",
    )
    references: str | None = Field(
        None, description="output of a finished audit, whose models judge the training samples"
    )
    by: Literal["multimem", "cmc_out", "clipmem", "cosine", "gradient_norm", "random", "list"] = (
        Field(
            "multimem",
            description="what chooses samples: high MultiMem; low consistency under references "
            "that never saw them (cmc_out); high CLIPMem; low cosine under the model itself; high "
            "norm of the gradient of its loss; at random; or those of the list `samples`",
        )
    )
    samples: str | None = Field(
        None, description="by list: the list, as `multimem select` writes it"
    )
    percent: float = Field(5.0, gt=0, le=100, description="share of a model's samples chosen")
    top: int | None = Field(None, ge=1, description="so many samples instead of a percentage")
    treatment: Literal["augment", "unpair", "drop"] = Field(
        "augment",
        description="augment: regroup them into batches of their own, with noise and stronger "
        "views; unpair: leave out the modality that fits least, by the references; drop: leave "
        "out the sample",
    )
    every: int = Field(10, ge=1, description="in_training: epochs between choices")
    start: int | None = Field(
        None,
        ge=0,
        description="in_training: first epoch with a treatment; default `every`, or 0 where the "
        "choice needs nothing of the running model (cmc_out, random, list)",
    )
    noise: float = Field(
        0.5, ge=0, description="augment: noise on their embeddings, as training.noise has it"
    )
    views: float = Field(1.0, ge=0, description="augment: factor of the strength of their views")
    seed: int = Field(0, ge=0, description="of random")

    @property
    def watches(self) -> bool:
        """Whether choices depend on the running model."""
        of_itself = {"cosine", "gradient_norm"}
        if self.kind == "in_training":
            of_itself |= {"multimem", "clipmem"}
        return self.kind != "none" and self.by in of_itself

    @property
    def first(self) -> int:
        """First epoch with a treatment."""
        if self.kind == "post_training":
            return 0
        if self.start is not None:
            return self.start
        return self.every if self.watches else 0

    @model_validator(mode="after")
    def _complete(self) -> MitigationConfig:
        if self.kind == "none":
            return self
        if self.references is None:
            raise ValueError("references: name the output of a finished audit of these data")
        if (self.by == "list") != (self.samples is not None):
            raise ValueError("samples: by: list goes with a list of samples, and it with by: list")
        if self.watches and self.kind == "in_training" and self.first == 0:
            raise ValueError(f"start = 0: by {self.by} needs an epoch of the model; use 1 or more")
        return self


class ScoringConfig(Section):
    """How samples are embedded and scored."""

    views: int = Field(4, ge=1, description="seeded views per sample the expectation runs over")
    seed: int = Field(0, ge=0, description="seed of the views")
    precision: Precision = Field(
        "fp32", description="what towers compute in; scores are computed in fp32 all the same"
    )
    batch_size: int = Field(128, ge=1, description="samples embedded at once; changes no score")
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
    concurrent_banks: int | Literal["auto"] = "auto"
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
    cpus: int = Field(1, ge=1, description="cores of an actor")
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
    title: str | None = None


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
    currency: str = "USD"


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
        if self.scoring.partition_by == "group" and self.design.group is None:
            raise ValueError("scoring.partition_by = group, and design.group is not set")
        if self.design.kind == "candidate" and self.design.candidate_fraction > 0.5:
            raise ValueError("design.candidate_fraction > 0.5: S_C and S_I are disjoint")
        target = self.design.target
        if target is not None and target.members == "all" and self.held_out.shards is None:
            raise ValueError(
                "design.target trained on all of data.shards, so nothing is left that neither it "
                "nor the references saw: name other shards in held_out.shards"
            )
        if self.mitigation.kind != "none" and self.design.kind == "given":
            raise ValueError("mitigation: with design.kind given no model is trained")
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
        return self

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
        del kept["data"]["planted"]
        for name in ("batch_size", "partitions", "partition_by", "max_partition_values"):
            del kept["scoring"][name]
        for name in ("checkpoint_every_s", "cache_gb", "held_out_samples", "trackers"):
            del kept["training"][name]
        if self.resources.train.workers_per_bank > 1:
            # Batch norm takes its statistics from what one worker has of a batch.
            workers = self.resources.train.workers_per_bank
            kept["resources"] = {"train": {"workers_per_bank": workers}}
        # Outputs from before there was a mitigation are those of trainings without.
        if self.mitigation.kind == "none":
            del kept["mitigation"]
        return kept


def digest(value: Any) -> str:
    """Sixteen hex digits of a JSON-serialisable value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply ``a.b=c`` overrides, and resolve.

    Raises:
        ConfigError: The file is missing or no YAML, a key is unknown (with the nearest known
            name), or a value is wrong.
    """
    raw: Any = {}
    if path is not None:
        try:
            raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such config file") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid YAML: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{path}: a config file is a mapping of keys to values")
    return resolve(apply_overrides(raw, overrides))


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set dotted keys: ``training.epochs=3``; the value is read as YAML."""
    merged = _merge({}, _expanded(raw))
    for item in overrides:
        dotted, found, text = item.partition("=")
        if not found or not dotted.strip():
            raise ConfigError(f"--set {item}: write key=value, such as training.epochs=3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {item}: the value is not valid YAML: {error}") from error
        place: Any = merged
        *parents, last = dotted.strip().split(".")
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                raise ConfigError(f"--set {item}: {parent} is a value, not a section")
        place[last] = value
    return merged


def resolve(raw: Mapping[str, Any]) -> Config:
    """Complete a raw mapping from its preset and validate it.

    Raises:
        ConfigError: See :func:`load`.
    """
    raw = _with_embeddings(_expanded(raw))
    _refuse_unknown(Config, raw, "")
    complete = _merge(_of_other_kinds(_defaults(raw), raw), raw)
    try:
        return Config.model_validate(complete)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _expanded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The short form ``model: NAME`` written out; NAME is a preset, or an adapter by its colon."""
    name = raw.get("model")
    if not isinstance(name, str):
        return dict(raw)
    return {**raw, "model": {"adapter" if ":" in name else "preset": name}}


def _with_embeddings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from ``data.embeddings`` for design and held-out set; the user's own wins."""
    data = raw.get("data")
    given = data.get("embeddings") if isinstance(data, Mapping) else None
    if not given:
        return dict(raw)
    from multimem_ray.embeddings.recorded import recorded_defaults

    return _merge(recorded_defaults(given, raw), raw)


def _defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What preset, adapter and target give for the sections."""
    return _merge(_of_references(raw), _of_target(raw))


def _of_target(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a target with an architecture of its own needs: references take the same."""
    design = raw.get("design")
    target = design.get("target") if isinstance(design, Mapping) else None
    checkpoint = target.get("checkpoint") if isinstance(target, Mapping) else None
    if not isinstance(checkpoint, str):
        return {}
    from multimem_ray.models.adapters import adapter_defaults, is_adapter

    if not is_adapter(checkpoint):
        return {}
    defaults = adapter_defaults(checkpoint)
    return {
        "modalities": defaults.get("modalities", {}),
        "model": {"modalities": defaults["model"]["modalities"]},
    }


def _of_references(raw: Mapping[str, Any]) -> dict[str, Any]:
    from multimem_ray.models.presets import preset_defaults

    model = raw.get("model")
    model = model if isinstance(model, Mapping) else {}
    if not model.get("adapter"):
        return preset_defaults(str(model.get("preset") or "tiny"))
    from multimem_ray.models.adapters import adapter_defaults

    defaults = adapter_defaults(str(model["adapter"]))
    if model.get("preset"):
        training = preset_defaults(str(model["preset"])).get("training", {})
        defaults["training"] = training
    modalities = {*defaults["model"]["modalities"], *(model.get("towers") or {})}
    defaults["model"] |= {"modalities": sorted(modalities), "preset": None}
    return defaults


def _of_other_kinds(defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults without the options of towers for which the user names another kind."""
    model = raw.get("model")
    given = (model.get("towers") if isinstance(model, Mapping) else None) or {}
    kept = _merge({}, defaults)
    towers = kept.get("model", {}).get("towers", {})
    for modality, settings in given.items():
        kind = settings.get("kind") if isinstance(settings, Mapping) else None
        if kind is not None and towers.get(modality, {}).get("kind") != kind:
            towers.pop(modality, None)
    return kept


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines ``key: old → new`` for what differs between two dumped configurations."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {json.dumps(a)} → {json.dumps(b)}")
    return lines


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?``, or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` wins; sections are merged, everything else is replaced."""
    merged = {k: _merge(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        elif value is not None or key not in merged:
            merged[key] = value
    return merged


def _section_of(annotation: Any) -> type[Section] | None:
    for candidate in (annotation, *(get_args(annotation) if get_origin(annotation) else ())):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _refuse_unknown(section: type[Section], raw: Mapping[str, Any], prefix: str) -> None:
    for key, value in raw.items():
        field = section.model_fields.get(str(key))
        if field is None:
            hint = nearest(str(key), section.model_fields)
            raise ConfigError(f"unknown config key '{prefix}{key}'{hint}")
        below = _section_of(field.annotation)
        if below is not None and isinstance(value, Mapping):
            _refuse_unknown(below, value, f"{prefix}{key}.")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"] if not isinstance(part, int)) or "config"
        if item["type"] == "missing":
            lines.append(f"{where}: required, and not given")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = item.get("input")
            shown = "" if isinstance(given, (Mapping, BaseModel)) else f" (given: {given!r})"
            lines.append(f"{where}: {message}{shown}")
    return "; ".join(dict.fromkeys(lines))
