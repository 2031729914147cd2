"""The bank: models taking turns, and what is in the way of a batch, change no number."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.scoring import bank as module
from multimem_ray.scoring.bank import Views, make_views
from multimem_ray.shards.reader import read_shard
from tests.scoring.bank_of import bank_of
from tests.small import small_run


def views_of(run: Run, url: str, most: int = 9) -> Views:
    samples = [s for s in islice(read_shard(url, run.storage), most) if isinstance(s, Sample)]
    return make_views(
        run.decoder,
        run.config.scoring,
        [s.key for s in samples],
        [run.decoder.decode(s) for s in samples],
    )


def test_pieces_of_a_batch_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, shards = small_run(tmp_path)
    bank, views = bank_of(run), views_of(run, shards.scored[0].url, 20)
    whole = bank.embed(views)
    monkeypatch.setattr(module, "_CPU_FEATURE_BYTES", 1)
    np.testing.assert_allclose(bank.embed(views).numpy(), whole.numpy(), atol=1e-6)
    assert (whole[:, :, ~views.present] == 0).all()
    assert torch.allclose(whole.norm(dim=-1)[:, :, views.present], torch.ones(()), atol=1e-5)
