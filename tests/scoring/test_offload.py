"""Models that wait in host memory and take turns change no number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multimem_ray.scoring.bank import ScoringBank
from tests.scoring.bank_of import CPU, bank_of
from tests.scoring.test_bank import decoded_of
from tests.small import small_run


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 5, 6, 99])
def test_models_that_take_turns_embed_alike(tmp_path: Path, at_once: int) -> None:
    sets = "design.models=6", "held_out.fraction=0.000001"
    run, shards = small_run(tmp_path, *sets)
    views = decoded_of(run, shards.scored[0].url)
    together = bank_of(run).embed(views)
    turned, _ = small_run(tmp_path, *sets, f"resources.score.models_on_device={at_once}")
    assert turned.fingerprint == run.fingerprint
    bank = ScoringBank(turned, CPU)
    for _ in range(2):
        torch.testing.assert_close(bank.embed(views), together, atol=1e-6, rtol=0)
    for i in range(6):
        for j in range(i):
            assert not torch.allclose(together[i], together[j])
