"""The exact properties of each design."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimem_ray.config import DesignConfig
from multimem_ray.design import Design, make_design
from multimem_ray.errors import DesignError

KEYS = [f"clips/{i:06d}" for i in range(20_000)]
KINDS = ["complementary_halves", "leave_subset_out", "candidate", "three_folds"]
PINNED = {
    "complementary_halves": "0110 0110 1001 0101 0110 0110 1010 1010 0110 0110 1010 0110",
    "leave_subset_out": "1101 1110 1011 1110 1110 1101 1011 1110 1110 1011 1101 1101",
    "three_folds": (
        "011011 110101 110011 011101 110101 110101 101101 101110 011011 101101 110011 011110"
    ),
    "candidate": "1111 1111 1111 1111 1111 1111 1111 1111 0101 1111 1010 1111",
}
groups_of = st.lists(st.text(max_size=12), max_size=12)
even = st.integers(1, 12).map(lambda pairs: 2 * pairs)


threes = st.integers(1, 8).map(lambda blocks: 3 * blocks)


def design(kind: str, models: int | None = None, **settings: object) -> Design:
    models = models or (6 if kind == "three_folds" else 4)
    return make_design(DesignConfig.model_validate({"kind": kind, "models": models, **settings}))


@given(groups_of, even, st.integers(0, 2**40))
def test_halves_are_complementary(groups: list[str], models: int, seed: int) -> None:
    made = design("complementary_halves", models, seed=seed)
    members = made.members(groups)
    assert members.shape == (len(groups), models)
    assert members.dtype == np.bool_
    assert (members[:, 0::2] == ~members[:, 1::2]).all()
    assert (members.sum(axis=1) == models // 2).all()


def test_another_draw_gives_other_halves_and_is_recorded() -> None:
    first, other = design("complementary_halves"), design("complementary_halves", draw=1)
    assert (first.members(KEYS) == other.members(KEYS)).mean() == pytest.approx(0.5, abs=0.01)
    assert "draw" not in first.describe()
    assert other.describe()["draw"] == 1


@given(groups_of, even, even)
def test_adding_pairs_changes_no_earlier_model(groups: list[str], few: int, many: int) -> None:
    few, many = sorted((few, many))
    small, large = design("complementary_halves", few), design("complementary_halves", many)
    assert (large.members(groups)[:, :few] == small.members(groups)).all()
    assert large.model_ids()[:few] == small.model_ids()


def test_halves_are_halves_and_pairs_independent() -> None:
    members = design("complementary_halves", 8).members(KEYS)
    assert np.abs(members.mean(axis=0) - 0.5).max() < 0.012
    correlations = np.corrcoef(members[:, 0::2].T) - np.eye(4)
    assert np.abs(correlations).max() < 0.025


@given(groups_of, st.integers(3, 20), st.integers(0, 2**40))
def test_each_sample_is_out_of_exactly_one_fold(groups: list[str], models: int, seed: int) -> None:
    members = design("leave_subset_out", models, seed=seed).members(groups)
    assert members.shape == (len(groups), models)
    assert members[:, 0].all()
    assert ((~members).sum(axis=1) == 1).all()


@given(groups_of, threes, threes, st.integers(0, 2**40))
def test_two_of_each_three_models_see_a_sample(
    groups: list[str], few: int, many: int, seed: int
) -> None:
    few, many = sorted((few, many))
    members = design("three_folds", many, seed=seed).members(groups)
    assert (members.reshape(len(groups), many // 3, 3).sum(axis=2) == 2).all()
    # More models change no earlier one.
    assert (members[:, :few] == design("three_folds", few, seed=seed).members(groups)).all()


def test_thirds_are_thirds_and_blocks_independent() -> None:
    left_out = ~design("three_folds", 6).members(KEYS)
    assert np.abs(left_out.mean(axis=0) - 1 / 3).max() < 0.012
    correlations = np.asarray(np.corrcoef(left_out.T))
    assert np.abs(correlations[:3, 3:]).max() < 0.025


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("complementary_halves", [0, 0, 1, 1, 2, 2]),
        ("candidate", [0, 0, 1, 1, 2, 2]),
        ("three_folds", [0, 0, 0, 1, 1, 1]),
        ("leave_subset_out", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_models_that_are_compared_are_a_block(kind: str, blocks: list[int]) -> None:
    made = design(kind, 6)
    assert [made.block_of(number) for number in range(6)] == blocks


def test_folds_are_of_equal_size() -> None:
    members = design("leave_subset_out", 6).members(KEYS)
    assert np.abs((~members).mean(axis=0) - [0, 0.2, 0.2, 0.2, 0.2, 0.2]).max() < 0.01


@settings(deadline=None)
@given(groups_of, even, st.floats(0.01, 0.5))
def test_candidates_as_the_papers_have_them(groups: list[str], models: int, share: float) -> None:
    made = design("candidate", models, candidate_fraction=share)
    members, splits = made.members(groups), made.splits(groups)
    assert splits is not None
    f, g = {"S_S", "S_C"}, {"S_S", "S_I"}
    expected = [[split in (f, g)[model % 2] for model in range(models)] for split in splits]
    assert members.tolist() == expected


def test_candidates_and_independents_are_of_the_same_size() -> None:
    splits = np.array(design("candidate", candidate_fraction=0.2).splits(KEYS))
    share = {name: (splits == name).mean() for name in ("S_S", "S_C", "S_I")}
    assert share == pytest.approx({"S_S": 0.6, "S_C": 0.2, "S_I": 0.2}, abs=0.012)
    all_in = design("candidate", candidate_fraction=0.5).splits(KEYS)
    assert set(all_in or []) == {"S_C", "S_I"}


def test_another_size_of_the_independents() -> None:
    made = design("candidate", candidate_fraction=0.1, independent_fraction=0.3)
    splits = np.array(made.splits(KEYS))
    share = {name: (splits == name).mean() for name in ("S_S", "S_C", "S_I")}
    assert share == pytest.approx({"S_S": 0.6, "S_C": 0.1, "S_I": 0.3}, abs=0.012)
    assert made.members(KEYS).mean(axis=0)[:2] == pytest.approx(
        made.train_fractions()[:2], abs=0.012
    )
    none = design("candidate", candidate_fraction=0.1, independent_fraction=0.0)
    assert "S_I" not in (none.splits(KEYS) or [])
    assert none.members(KEYS)[:, 0].all()


def test_a_larger_candidate_fraction_keeps_the_candidates() -> None:
    few = design("candidate", candidate_fraction=0.1).splits(KEYS) or []
    many = design("candidate", candidate_fraction=0.2).splits(KEYS) or []
    assert all(after == "S_C" for before, after in zip(few, many, strict=True) if before == "S_C")


@given(groups_of, even)
def test_candidate_contrasts_every_f_with_every_g(groups: list[str], models: int) -> None:
    f, g = design("candidate", models).contrast(groups)
    assert f.shape == g.shape == (len(groups), models)
    assert f[:, 0::2].all()
    assert not f[:, 1::2].any()
    assert (g == ~f).all()
    assert f.flags.writeable


@pytest.mark.parametrize("kind", KINDS[:2])
def test_else_who_trained_stands_against_who_did_not(kind: str) -> None:
    made = design(kind)
    f, g = made.contrast(KEYS[:50])
    assert (f == made.members(KEYS[:50])).all()
    assert (g == ~f).all()
    assert made.splits(KEYS[:50]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_belongs_together_stays_together(kind: str) -> None:
    made = design(kind, 6)
    members = made.members(["clip-7", "clip-8", "clip-7"])
    assert (members[0] == members[2]).all()
    assert (made.members(["clip-7"])[0] == members[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_draw(kind: str) -> None:
    one, other = (design(kind, seed=seed).members(KEYS[:2000]) for seed in (0, 1))
    assert 0.05 < (one[:, 1:] != other[:, 1:]).mean() < 0.55


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_what_is_drawn(kind: str) -> None:
    made = design(kind, 6)
    np.testing.assert_allclose(made.members(KEYS).mean(axis=0), made.train_fractions(), atol=0.012)


@pytest.mark.parametrize("kind", KINDS)
def test_no_sample_no_rows(kind: str) -> None:
    made = design(kind, 6)
    f, g = made.contrast([])
    assert made.members([]).shape == f.shape == g.shape == (0, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_design_can_be_sent_and_written(kind: str) -> None:
    made = design(kind, 6, group="json.source")
    sent = pickle.loads(pickle.dumps(made))
    assert (sent.members(KEYS[:100]) == made.members(KEYS[:100])).all()
    told = json.loads(json.dumps(made.describe()))
    assert told["kind"] == kind
    assert told["group"] == "json.source"
    assert list(told["share"]) == made.model_ids() == [f"{n:03d}" for n in range(6)]


def test_values_are_pinned() -> None:
    """Models already trained depend on them: they must be the same for ever."""
    for kind, rows in PINNED.items():
        drawn = design(kind).members(list("abcdefghijkl"))
        assert [[bit == "1" for bit in row] for row in rows.split()] == drawn.tolist()


@pytest.mark.parametrize(
    ("kind", "models", "said"),
    [
        ("complementary_halves", 3, r"design\.models = 3: .* use 2 or 4"),
        ("candidate", 5, r"design\.models = 5: .* use 4 or 6"),
        ("three_folds", 4, r"design\.models = 4: .* use 3 or 6"),
        ("leave_subset_out", 2, r"design\.models = 2: .* use 3 or more"),
    ],
)
def test_numbers_that_cannot_work_are_named(kind: str, models: int, said: str) -> None:
    with pytest.raises(DesignError, match=said):
        design(kind, models)


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_candidate_fraction_that_cannot_work_is_named(share: float) -> None:
    with pytest.raises(DesignError, match=rf"design\.candidate_fraction = {share}"):
        design("candidate", candidate_fraction=share)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_trains_outside_the_pool(kind: str) -> None:
    whole = design(kind)
    part = design(kind, pool=0.2)
    inside = part.in_pool(KEYS)
    assert inside.mean() == pytest.approx(0.2, abs=0.012)
    assert not part.members(KEYS)[~inside].any()
    np.testing.assert_array_equal(part.members(KEYS)[inside], whole.members(KEYS)[inside])
    # Being in the pool tells nothing of which models train on a sample.
    np.testing.assert_allclose(
        whole.members(KEYS)[inside].mean(axis=0), whole.train_fractions(), atol=0.03
    )
    f, _ = part.contrast(KEYS)
    assert not f[~inside].any(), "no score without a model that may have seen it"


def test_a_candidate_outside_the_pool_is_in_no_split() -> None:
    part = design("candidate", pool=0.2)
    inside = part.in_pool(KEYS)
    splits = np.array([split or "" for split in part.splits(KEYS) or []])
    assert set(splits[~inside]) == {""}
    assert set(splits[inside]) == {"S_S", "S_C", "S_I"}
    f, g = part.contrast(KEYS)
    assert not (f | g)[~inside].any()
