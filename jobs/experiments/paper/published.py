"""Figures that the papers print, to stand beside ours.

arXiv 2606.22220 (MultiMem): Fig. 1, Table 3, mitigation. arXiv 2502.07830 (CLIPMem): removal is
compared with it there. Scales differ (other data, models and definitions of a split), so it is
their order that a small experiment can confirm, not their size.
"""

from __future__ import annotations

# Fig. 1: AudioCLIP, mean over S_C, S_I, S_S.
SPLITS = {
    "all": (0.332, -0.318, -0.005),
    "audio+image": (0.214, -0.203, 0.004),
    "audio+text": (0.227, -0.218, -0.001),
    "image+text": (0.222, -0.219, 0.001),
}

# Table 3: noise of σ = 0.1 on representations in training: MultiMem, top-5 retrieval AI → T.
NOISE = {
    "": (0.332, 36.9),
    "audio": (0.320, 38.2),
    "image": (0.312, 39.0),
    "text": (0.294, 39.8),
    "audio+image": (0.299, 39.4),
    "audio+text": (0.283, 40.7),
    "image+text": (0.271, 42.1),
    "audio+image+text": (0.264, 43.1),
}

# In-training mitigation by the epoch at which regrouping begins: MultiMem.
REGROUPING = dict(
    zip(
        range(0, 100, 10),
        (0.332, 0.321, 0.299, 0.301, 0.298, 0.294, 0.280, 0.265, 0.262, 0.281),
        strict=True,
    )
)

# Post-training mitigation: top-5 retrieval after removing N.
REMOVED = (0, 150, 200, 300, 500, 700)
REMOVAL = {
    "multimem": (36.9, 39.1, 39.3, 38.8, 37.9, 36.8),
    "cosine": (36.9, 38.8, 38.9, 38.4, 37.6, 36.4),
    "clipmem": (36.9, 38.4, 38.3, 37.9, 37.2, 36.1),
    "random": (36.9, 36.7, 36.8, 36.6, 36.2, 35.5),
}

# Which modality adds most to memorization, most first.
RANKING = ("text", "video", "image", "audio")
