"""Shards, embeddings, held-out set and design: what each section refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from multimem_ray.config import DataConfig, DesignConfig, EmbeddingsConfig, EmbeddingSet


def test_short_forms_stand_for_one_key() -> None:
    assert EmbeddingSet.model_validate("f/*.parquet").files == "f/*.parquet"
    assert EmbeddingsConfig.model_validate("runs/a").run == "runs/a"


@pytest.mark.parametrize(
    ("model", "raw", "said"),
    [
        (EmbeddingSet, {}, "either files .* or arrays"),
        (EmbeddingSet, {"files": "a", "arrays": {"image": "b.npy"}}, "either files"),
        (EmbeddingSet, {"arrays": {"image": "b.npy"}}, "arrays need keys"),
        (EmbeddingsConfig, {"models": ["a"]}, "at least two models"),
        (DataConfig, {}, "Field required"),
        (DataConfig, {"shards": ["a", ""]}, "at least one shard"),
        (DataConfig, {"shards": "a", "embeddings": "runs/a"}, "takes the place of shards"),
        (DesignConfig, {"kind": "given"}, "at least two models"),
        (DesignConfig, {"kind": "leave_subset_out", "models": "auto"}, "does not allow"),
        (DesignConfig, {"reliability": 0.8}, "goes with design.models: auto"),
        (DesignConfig, {"models": 8, "budget_hours": 1}, "goes with design.models: auto"),
        (DesignConfig, {"models": 8, "max_models": 16}, "goes with design.models: auto"),
        (DesignConfig, {"given": [{"checkpoint": "a"}]}, "is for design.kind: given"),
    ],
)
def test_what_cannot_serve_says_why(model: Any, raw: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        model.model_validate(raw)


def test_given_models_are_counted() -> None:
    given = [{"checkpoint": name} for name in "abc"]
    assert DesignConfig.model_validate({"kind": "given", "given": given}).models == 3


def test_auto_is_a_first_number_of_models_and_what_they_grow_by() -> None:
    auto = DesignConfig.model_validate({"models": "auto"})
    assert (auto.models, auto.reliability, auto.max_models, auto.grows) == (4, 0.8, 32, True)
    thirds = DesignConfig.model_validate({"models": "auto", "kind": "three_folds"})
    assert thirds.models == 6
    spent = DesignConfig.model_validate({"models": "auto", "budget_hours": 2, "max_models": 8})
    assert (spent.reliability, spent.max_models) == (None, 8)
    grown = spent.model_copy(update={"models": 6})
    assert DesignConfig.model_validate(grown.model_dump(mode="json")) == grown
    assert not DesignConfig(models=4).grows


def test_s_i_has_the_share_of_s_c_unless_it_is_said() -> None:
    assert DesignConfig(candidate_fraction=0.2).candidate_shares == (0.2, 0.2)
    shares = DesignConfig(candidate_fraction=0.2, independent_fraction=0.3).candidate_shares
    assert shares == (0.2, 0.3)


def test_embeddings_need_no_shards() -> None:
    assert DataConfig.model_validate({"embeddings": "runs/a"}).shards == []
