"""Towers, the contrastive model over any set of modalities, its loss, presets, checkpoints."""
