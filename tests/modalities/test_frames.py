"""Which frames of a clip are shown."""

from __future__ import annotations

import numpy as np

from multimem_ray.modalities.frames import spaced


def test_times_that_are_rounded_or_jitter_choose_the_frames_of_a_constant_rate() -> None:
    even = list(range(0, 40 * 97, 40))
    rng = np.random.default_rng(0)
    for count in (5, 8, 16):
        expected = [int((k + 0.5) * 97 / count) for k in range(count)]
        for noise in (0, 1, 19):
            times = sorted(int(t + rng.integers(-noise, noise + 1)) for t in even)
            assert spaced(times, 40, count) == expected
    assert spaced([7], 0, 4) == [0, 0, 0, 0]
    assert spaced([5, 5, 5], 0, 3) == [0, 1, 2]
    assert spaced([0, 1, 2, 100], 100, 4) == [2, 2, 3, 3]
