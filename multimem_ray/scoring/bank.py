"""The bank in scoring: M reference models in one process, one decode for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multimem_ray.metric import Agreement, agreement
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.contrastive import build_model, channels_last
from multimem_ray.run import Run


@dataclass(frozen=True)
class Views:
    """Seeded views of B samples: V batches, all with the same samples in the same order."""

    batches: Sequence[Batch]
    present: Tensor


def make_views(run: Run, keys: Sequence[str], decoded: Sequence[Mapping[str, Array]]) -> Views:
    """The views that scores are an expectation over; a function of seed and key alone."""
    scoring, decoder = run.config.scoring, run.decoder
    batches = []
    for view in range(scoring.views):
        made = [
            decoder.views(key, arrays, scoring.seed, view)
            for key, arrays in zip(keys, decoded, strict=True)
        ]
        batches.append(decoder.collate(made))
    return Views(batches, batches[0].present(run.modalities))


class ScoringBank:
    """All finished reference models of a run, ready to embed.

    Args:
        run: The run; its models must be done.
        device: Where they compute.

    Raises:
        ModelError: A model is missing or damaged.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run = run
        self.device = device
        self.models = []
        for model_id in run.design.model_ids():
            model = build_model(run.config.model, run.decoder.modalities, seed=0, weights=False)
            run.model_folder(model_id).load_into(model)
            model.requires_grad_(requires_grad=False).eval()
            self.models.append(channels_last(model.to(device)))

    @torch.inference_mode()
    def embed(self, views: Views) -> Tensor:
        """Embeddings of all models: (M, V, B, n, d) float32; zero where a modality is absent."""
        names = self.run.modalities
        shape = (len(self.models), len(views.batches), len(views.present), len(names))
        out = torch.zeros(*shape, self.models[0].dim, device=self.device)
        for view, batch in enumerate(views.batches):
            there = batch.to(self.device, non_blocking=True)
            features = self.models[0].prepare(there.values)
            for number, model in enumerate(self.models):
                for name, embedded in model.embed(features).items():
                    out[number, view, there.rows[name], names.index(name)] = embedded
        return out

    def agreements(self, views: Views, means: Tensor) -> list[Agreement]:
        """Agreement matrices of B samples under each model, on the CPU.

        Args:
            means: (M, n, d), held-out mean vectors.
        """
        present = views.present.to(self.device)
        found = [
            agreement(embedded, present, mean)
            for embedded, mean in zip(self.embed(views), means.to(self.device), strict=True)
        ]
        return [Agreement(a.alignment.cpu(), a.uniformity.cpu()) for a in found]


def pick_device(gpus: float) -> torch.device:
    """The GPU that Ray gave to this actor, or the CPU where none was asked for."""
    return torch.device("cuda") if gpus and torch.cuda.is_available() else torch.device("cpu")
