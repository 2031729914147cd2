"""The bank: models taking turns, and what is in the way of a batch, change no number."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from multimem_ray.modalities.batch import DecodedBatch
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.scoring import bank as module
from multimem_ray.shards.reader import read_shard
from tests.scoring.bank_of import bank_of, batch_of
from tests.small import small_run


def decoded_of(run: Run, url: str, most: int = 9) -> DecodedBatch:
    samples = [s for s in islice(read_shard(url, run.storage), most) if isinstance(s, Sample)]
    return batch_of(run, {s.key: run.decoder.decode(s) for s in samples})


def test_pieces_of_a_batch_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, shards = small_run(tmp_path)
    bank, decoded = bank_of(run), decoded_of(run, shards.scored[0].url, 20)
    whole, present = bank.embed(decoded), decoded.present(run.modalities)
    monkeypatch.setattr(module, "_CPU_FEATURE_BYTES", 1)
    np.testing.assert_allclose(bank.embed(decoded).numpy(), whole.numpy(), atol=1e-6)
    assert (whole[:, :, ~present] == 0).all()
    assert torch.allclose(whole.norm(dim=-1)[:, :, present], torch.ones(()), atol=1e-5)
