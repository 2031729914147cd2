"""A model of your own as a plugin: `model: plugin:jobs.examples.plugin:OwnModel`."""

from __future__ import annotations

from torch import Tensor, nn


class OwnModel(nn.Module):
    """Two linear layers on pixels and a bag of words: put your own network in their place."""

    dim = 32
    modalities = {"image": {"size": 16}, "text": {"length": 24, "vocab": 1024}}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Linear(3 * 16 * 16, self.dim)
        self.words = nn.EmbeddingBag(1024, self.dim, padding_idx=0)

    def embed(self, modality: str, values: Tensor) -> Tensor:
        """Vectors (B, dim) of a batch of one modality."""
        if modality == "image":
            embedded: Tensor = self.pixels(values.flatten(1).float() / 255 - 0.5)
        else:
            embedded = self.words(values.long())
        return embedded
