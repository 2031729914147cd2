"""The reference models: architecture, training, mitigation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from multimem_ray.config.base import Precision, Section

ECONOMY_STOP = 0.667
"""Share of the epochs after which models of the recipe economy stop."""


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
    allow: list[str] = Field(
        default_factory=list,
        description="what a checkpoint's own files may ask for: plugin:package.module:factory, "
        "which is code; hf:ORG/NAME, which is fetched; pickle = weights that are no safetensors",
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
    logit_scale_max: float = Field(100.0, gt=0, description="largest logit scale in training")


class TrainingConfig(Section):
    """How each reference model is trained."""

    recipe: Literal["full", "economy"] = Field(
        "full",
        description="economy: unless they are given, stop_at is 2/3 and shared_init true, for "
        "rankings about as true at two thirds of the cost",
    )
    epochs: int = Field(120, ge=1, description="passes of each model over its samples")
    stop_at: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="share of the epochs after which training stops; the schedule stays that of "
        "all of them",
    )
    shared_init: bool | None = Field(
        None,
        description="models that are compared with one another (a pair, the folds of a three_folds "
        "block) start from the same random weights; default: in three_folds only",
    )
    batch_size: int = Field(128, ge=2, description="samples per step of each model")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="samples that a tower embeds at once, where a batch needs too much memory; the "
        "loss is still that of the whole batch; default all",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd is with Nesterov momentum")
    lr: float = Field(1.0e-3, gt=0, description="learning rate at the end of the warm-up")
    momentum: float = Field(0.9, gt=0, lt=1, description="sgd: Nesterov momentum")
    betas: tuple[float, float] = Field((0.9, 0.999), description="adamw: decay of its two means")
    eps: float = Field(1.0e-8, gt=0, description="adamw: added to the denominator")
    schedule: Literal["cosine", "exponential", "constant"] = Field(
        "cosine", description="of the learning rate, after the warm-up"
    )
    gamma: float = Field(0.96, gt=0, le=1, description="exponential: factor of each epoch")
    warmup_steps: int = Field(20, ge=0, description="steps in which lr rises linearly from 0")
    weight_decay: float = Field(
        0.01, ge=0, description="decay of matrices; vectors and scalars, such as biases, have none"
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest norm of a model's gradient; null = not clipped"
    )
    precision: Precision = Field(
        "fp32", description="what towers compute in; weights and the loss are always fp32"
    )
    compile: bool = Field(
        False,
        description="torch.compile the towers: takes a compiler and minutes at the start, and on a "
        "CPU models then step one after the other; for large towers and long trainings",
    )
    seed: int = Field(0, ge=0, description="of initial weights, order and views")
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
        20.0,
        ge=0,
        description="seconds between checkpoints, within an epoch too; more where copying them "
        "would hold training up for above a hundredth of the time, or writing them beside it take "
        "above a fifth; 0 = after every epoch",
    )

    @model_validator(mode="before")
    @classmethod
    def _economy(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("recipe") != "economy":
            return raw
        given = {name: value for name, value in raw.items() if value is not None}
        return {"stop_at": ECONOMY_STOP, "shared_init": True, **given}

    @property
    def trained_epochs(self) -> int:
        """Epochs after which training stops."""
        return max(1, round(self.stop_at * self.epochs))


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
    by: Literal[
        "multimem_shrunk",
        "multimem",
        "cmc_out",
        "clipmem",
        "cosine",
        "gradient_norm",
        "random",
        "list",
    ] = Field(
        "multimem_shrunk",
        description="what chooses samples: a high shrunk score under the references (the literal "
        "one, where they are two models); high MultiMem, in_training that of the model itself "
        "against the references; low consistency under references that never saw them (cmc_out); "
        "high CLIPMem; low cosine under the model itself; high norm of the gradient of its loss; "
        "at random; or those of the list `samples`",
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
        "choice needs nothing of the running model (multimem_shrunk, cmc_out, random, list)",
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
