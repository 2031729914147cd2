"""Modalities: from the members of a sample to batches of tensors. One file each."""

from __future__ import annotations
