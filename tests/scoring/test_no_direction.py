"""A model makes NaN, infinite or zero vectors of samples: errors, and the rest is scored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multimem_ray.errors import HeldOutError, SampleError
from multimem_ray.modalities.batch import DecodedBatch
from multimem_ray.sample import Failure
from multimem_ray.scoring.bank import ScoringBank, require_directions
from multimem_ray.scoring.held_out import HeldOutSamples
from multimem_ray.scoring.held_out_plan import Chosen
from multimem_ray.scoring.held_out_stats import Embedded, summarize
from multimem_ray.scoring.shard import score_shard, shard_parts
from multimem_ray.store.parts import Part
from tests.scoring.bank_of import bank_of, scores_of
from tests.small import small_run


@pytest.mark.parametrize(
    ("value", "kind"),
    [(torch.nan, "not_finite"), (torch.inf, "not_finite"), (0.0, "zero_vector")],
)
def test_one_view_without_direction_is_a_sample_error(value: float, kind: str) -> None:
    embedded = torch.nn.functional.normalize(torch.randn(2, 3, 4, 2, 8), dim=-1)
    present = torch.ones(4, 2, dtype=torch.bool)
    require_directions(embedded, present)
    embedded[1, 2, 3, 0] = value
    with pytest.raises(SampleError, match="model 001") as caught:
        require_directions(embedded, present)
    assert (caught.value.kind, caught.value.stage) == (kind, "score")
    present[3, 0] = False
    require_directions(embedded, present)


class _Spoiled(ScoringBank):
    """Gives NaN for samples without a picture, or for every one, under the second model."""

    every = False

    def embed(self, decoded: DecodedBatch) -> torch.Tensor:
        embedded = super().embed(decoded).clone()
        for row, present in enumerate(decoded.present(self.run.modalities)):
            if self.every or not present[1]:
                embedded[1, :, row, 0] = torch.nan
        return embedded


def _spoiled(folder: Path, *, every: bool = False) -> tuple[object, ...]:
    run, shards = small_run(folder, "scoring.batch_size=8")
    bank = bank_of(run)
    bank.__class__ = _Spoiled
    bank.every = every  # type: ignore[attr-defined]
    return run, shards, bank


@pytest.mark.parametrize("every", [False, True])
def test_they_are_errors_and_the_rest_is_scored(tmp_path: Path, every: bool) -> None:
    run, shards, bank = _spoiled(tmp_path, every=every)
    whole = score_shard(scores_of(run, bank), shards.scored[0])
    reasons = whole.errors.to_pylist()
    assert whole.receipt.samples == 20
    assert (whole.scores.num_rows == 0) == every
    assert {row["error"] for row in reasons} == {"not_finite"}
    assert all("model 001" in row["detail"] for row in reasons)
    assert whole.scores["multimem"].null_count == 0
    plain = score_shard(scores_of(run, bank_of(run)), shards.scored[0])
    assert plain.scores.num_rows == whole.scores.num_rows + len(reasons)


def test_of_the_held_out_set_they_are_left_out(tmp_path: Path) -> None:
    run, shards, bank = _spoiled(tmp_path, every=True)
    chosen = Chosen(shards.scored[0].url, ("s0001", "s0002"))
    parts = shard_parts(HeldOutSamples(run, bank, chosen), chosen.shard)
    assert [f.error for part in parts for f in part.failures] == ["not_finite"] * 2


def test_a_held_out_set_of_none_is_one_clear_error() -> None:
    failure = Failure("a.tar", "k", 0, "score", "not_finite", "a vector is NaN (model 000)")
    part = Part(0, 1, Embedded.nothing(2, 2, 4), 0, [failure])
    said = r"none of the 1 held-out samples can be used; the first is a.tar, k: a vector is NaN"
    with pytest.raises(HeldOutError, match=said):
        summarize(lambda: [part], ["a", "b"], target=False)
