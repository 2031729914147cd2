"""Random numbers by counter: pinned, even, and the same whatever is drawn beside them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.modalities.draws import Draws, seeds_of


def draws(*keys: str, views: int = 4) -> Draws:
    return Draws(seeds_of(0, "score", keys), range(views))


def test_numbers_are_pinned() -> None:
    # Stored scores depend on them.
    one = draws("a", views=2).of("image")
    assert one.uniform(2).tolist() == [
        [[0.060549584941142154, 0.8560751697450224], [0.520633611523596, 0.041726388307093076]]
    ]
    assert one.bytes(4).tolist() == [[[87, 25, 19, -100], [11, 76, -9, 100]]]
    # As made on other devices.
    places = torch.arange(2) - (1 << 62)
    assert torch.equal(one._bits(places).view(torch.int8)[..., :11], one.bytes(11))


@given(st.lists(st.text(max_size=3), min_size=2, max_size=5, unique=True), st.integers(1, 70))
def test_a_number_depends_on_sample_view_stream_and_place_alone(keys: list[str], n: int) -> None:
    together = draws(*keys).of("audio")
    for row, key in enumerate(keys):
        for view in range(4):
            alone = Draws(seeds_of(0, "score", [key]), [view], "audio")
            assert torch.equal(alone.uniform(n + 5)[0, 0, :n], together.uniform(n)[row, view])
            assert torch.equal(alone.bytes(n + 5)[0, 0, :n], together.bytes(n)[row, view])
    assert torch.equal(together.rows(slice(1, 2)).uniform(n), together.uniform(n)[1:2])


def test_streams_views_and_samples_are_independent() -> None:
    one = draws(*map(str, range(50)))
    numbers = torch.stack([one.of(name).uniform(200) for name in ("image", "text")]).flatten(0, 2)
    assert ((numbers >= 0) & (numbers < 1)).all()
    correlation = np.corrcoef(numbers.numpy()) - np.eye(len(numbers))
    assert np.abs(correlation).max() < 6 / 200**0.5


def test_numbers_and_bytes_are_even() -> None:
    numbers = draws("a", "b").uniform(20_000).flatten().numpy()
    counts = np.histogram(numbers, bins=256, range=(0, 1))[0]
    noise = draws("a", "b").bytes(20_003).flatten().numpy()
    of_bytes = np.bincount(noise.astype(int) + 128, minlength=256)
    for seen in (counts, of_bytes):
        expected = seen.sum() / 256
        # Chi-squared of 255 degrees of freedom: mean 255, standard deviation 22.6.
        assert abs(((seen - expected) ** 2 / expected).sum() - 255) < 5 * 22.6
    neighbours = np.corrcoef(noise[:-1], noise[1:])[0, 1]
    assert abs(neighbours) < 5 / len(noise) ** 0.5


def test_generators_are_fresh_ones_of_their_own() -> None:
    one = draws("a", "b", views=3).of("touch")
    seen = [rng.random() for rng in one.generators(1)]
    fresh = [np.random.Generator(np.random.Philox(key=k % 2**64)) for k in one.keys[1].tolist()]
    assert seen == [rng.random() for rng in fresh]
    rng = next(one.generators(0))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: next(one.generators(0))).result()
    assert other is not rng
    rng.bytes(3)
    assert next(one.generators(0)).bytes(5) == other.bytes(5)
