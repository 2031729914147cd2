"""Two ranks with uneven batches give the loss and the gradients of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize

from multimem_ray.models.loss import contrastive_loss, pairs_of

NAMES = ("audio", "image", "text")
# Which samples have which modality, of nine in all.
ROWS = {
    "audio": [0, 1, 2, 6, 7],
    "image": [0, 2, 3, 4, 5, 6, 7, 8],
    "text": list(range(9)),
}
# Where the second rank's samples begin: uneven, and without any sound.
CUTS = {"uneven": 6, "one rank without sound": 8}


class Model(nn.Module):
    def __init__(self, frozen: str | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.towers = nn.ModuleDict({name: nn.Linear(6, 4) for name in NAMES})
        self.scales = nn.Parameter(torch.tensor([3.0, 5.0, 7.0]))
        if frozen:
            self.towers[frozen].requires_grad_(False)

    def loss(self, first: int, last: int) -> Tensor:
        """Of the samples first … last - 1."""
        generator = torch.Generator().manual_seed(1)
        embeddings, rows = {}, {}
        for name in NAMES:
            values = torch.randn(9, 6, generator=generator)
            at = [row for row in ROWS[name] if first <= row < last]
            if at:
                embeddings[name] = normalize(self.towers[name](values[at]), dim=-1)
                rows[name] = torch.tensor(at) - first
        scales = dict(zip(pairs_of(NAMES), self.scales.unbind(), strict=True))
        return contrastive_loss(embeddings, rows, scales)

    def gradients(self) -> dict[str, Tensor]:
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in self.named_parameters()
        }


def _rank(rank: int, folder: str, cut: int, frozen: str | None) -> None:
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = Model(frozen)
    loss = model.loss(*((0, cut) if rank == 0 else (cut, 9)))
    loss.backward()
    found: dict[str, Any] = {"loss": loss.detach()}
    for name, gradient in model.gradients().items():
        distributed.all_reduce(gradient)
        found[name] = gradient / 2
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("case", "frozen"), [("uneven", None), ("one rank without sound", None), ("uneven", "audio")]
)
def test_two_ranks_are_one_process(case: str, frozen: str | None, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(
        _rank, (str(tmp_path), CUTS[case], frozen), nprocs=2, start_method="spawn"
    )
    alone = Model(frozen)
    loss = alone.loss(0, 9)
    loss.backward()
    expected = {"loss": loss.detach(), **alone.gradients()}
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5, msg=name)
