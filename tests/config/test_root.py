"""All sections together: what cannot be combined, and what a fingerprint covers."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from multimem_ray.config import Config, difference
from multimem_ray.errors import ConfigError
from multimem_ray.setup import resolve

MINIMAL = {"output": "out", "data": {"shards": "*.tar"}}


def test_combinations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="even number"):
        resolve({**MINIMAL, "design": {"models": 3}})
    assert resolve({**MINIMAL, "design": {"models": 3, "kind": "leave_subset_out"}})
    with pytest.raises(ConfigError, match="three_folds needs a multiple of three"):
        resolve({**MINIMAL, "design": {"kind": "three_folds"}})
    shared = {"design": {"kind": "leave_subset_out"}, "training": {"shared_init": True}}
    with pytest.raises(ConfigError, match=r"training\.shared_init: in leave_subset_out"):
        resolve(MINIMAL | shared)
    target = {"checkpoint": "a", "members": "none"}
    with pytest.raises(ConfigError, match="with a target, stored embeddings or a mitigation"):
        resolve({**MINIMAL, "design": {"models": "auto", "target": target}})
    with pytest.raises(ConfigError, match="H is empty"):
        resolve({**MINIMAL, "held_out": {"fraction": 0}})


def test_a_resolved_config_survives_a_round_trip() -> None:
    config = resolve(MINIMAL)
    again = Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("resources", "cache_dir", "/elsewhere"),
        ("report", "top", 3),
        ("storage", "retries", 1),
        ("scoring", "batch_size", 7),
        ("scoring", "partitions", 2),
        ("training", "checkpoint_every_s", 1.0),
        ("data", "planted", "truth.parquet"),
        ("data", "limits", {"json_bytes": 16 << 20}),
        ("design", "models", "auto"),
    ],
)
def test_what_changes_no_score_changes_no_fingerprint(
    section: str, key: str, value: object
) -> None:
    changed = resolve({**MINIMAL, section: {**MINIMAL.get(section, {}), key: value}})  # type: ignore[dict-item]
    assert changed.fingerprint() == resolve(MINIMAL).fingerprint()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "lr", 0.5),
        ("training", "stop_at", 0.5),
        ("training", "shared_init", True),
        ("scoring", "views", 2),
        ("design", "seed", 1),
        ("held_out", "fraction", 0.5),
        ("model", "dim", 8),
        ("modalities", "image", {"size": 16}),
        ("data", "limits", {"json_bytes": 1 << 20}),
    ],
)
def test_what_changes_a_score_changes_the_fingerprint(
    section: str, key: str, value: object
) -> None:
    changed = resolve({**MINIMAL, section: {**MINIMAL.get(section, {}), key: value}})  # type: ignore[dict-item]
    assert changed.fingerprint() != resolve(MINIMAL).fingerprint()


def test_the_share_of_s_i_enters_only_where_it_differs() -> None:
    candidate = {"kind": "candidate", "candidate_fraction": 0.2}

    def of(**more: float) -> str:
        return resolve({**MINIMAL, "design": candidate | more}).fingerprint()

    assert "independent_fraction" not in resolve(MINIMAL).score_relevant()["design"]
    assert of(independent_fraction=0.2) == of()
    assert of(independent_fraction=0.3) != of()
    with pytest.raises(ConfigError, match=r"independent_fraction.*design\.kind: candidate"):
        resolve({**MINIMAL, "design": {"independent_fraction": 0.3}})
    with pytest.raises(ConfigError, match="at most 1 together"):
        of(independent_fraction=0.9)


def test_early_stop_and_shared_start_enter_only_where_they_differ() -> None:
    def of(design: str = "complementary_halves", models: int = 6, **training: object) -> Config:
        return resolve(
            {**MINIMAL, "design": {"kind": design, "models": models}, "training": training}
        )

    plain = of(epochs=60)
    assert (
        not {"stop_at", "trained_epochs", "shared_init"} & plain.score_relevant()["training"].keys()
    )
    assert of(epochs=60, stop_at=1.0, shared_init=False).fingerprint() == plain.fingerprint()
    # What counts is the epochs, not how the share was written.
    early = of(epochs=60, stop_at=0.667)
    assert early.training.trained_epochs == 40
    assert early.fingerprint() == of(epochs=60, stop_at=2 / 3).fingerprint()
    # Forty of sixty epochs are not forty of forty: the schedule differs.
    assert early.fingerprint() != of(epochs=40).fingerprint()
    folds = of("three_folds")
    assert folds.shares_init
    assert folds.fingerprint() == of("three_folds", shared_init=True).fingerprint()
    assert folds.fingerprint() != of("three_folds", shared_init=False).fingerprint()


def test_the_economy_recipe_is_told_by_the_keys_that_it_sets() -> None:
    def of(**training: Any) -> Config:
        return resolve({"output": "o", "data": {"shards": "s"}, "training": training})

    economy = of(recipe="economy")
    assert economy.training.trained_epochs == 80
    assert economy.shares_init
    assert economy.fingerprint() == of(stop_at=2 / 3, shared_init=True).fingerprint()
    assert economy.fingerprint() != of().fingerprint() == of(recipe="full").fingerprint()
    assert of(recipe="economy", stop_at=0.5).training.trained_epochs == 60
    assert not of(recipe="economy", shared_init=False).shares_init
    recorded = Config.model_validate(economy.model_dump(mode="json"))
    assert recorded == economy


def test_another_draw_of_halves_is_another_run() -> None:
    raw = {"output": "o", "data": {"shards": "s"}}
    plain = resolve(raw)
    assert "draw" not in plain.score_relevant()["design"]
    assert resolve(raw | {"design": {"draw": 1}}).fingerprint() != plain.fingerprint()
    with pytest.raises(ConfigError, match=r"design\.draw is for design\.kind"):
        resolve(raw | {"design": {"draw": 1, "kind": "candidate"}})


def test_mitigation_needs_models_that_train() -> None:
    mitigation = {"kind": "in_training", "by": "cmc_out", "references": "runs/first"}
    models = [{"files": f"{n}/*.parquet", "members": "none"} for n in "fg"]
    stored = {"output": "out", "data": {"embeddings": {"models": models}}}
    with pytest.raises(ConfigError, match="mitigation: with given models or stored embeddings"):
        resolve(stored | {"mitigation": mitigation})


def test_several_workers_for_a_bank_are_part_of_what_a_model_is() -> None:
    raw = {"output": "o", "data": {"shards": "s"}}
    alone = resolve(raw)
    assert resolve(raw | {"resources": {"train": {"workers_per_bank": 1}}}).fingerprint() == (
        alone.fingerprint()
    )
    shared = resolve(raw | {"resources": {"train": {"workers_per_bank": 2}}})
    assert shared.fingerprint() != alone.fingerprint()
    assert difference(alone.score_relevant(), shared.score_relevant())
