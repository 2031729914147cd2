"""Batches of samples that lack modalities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.modalities.batch import Batch


def batch(present: list[list[bool]]) -> Batch:
    """Values that say which sample (tens) and modality (ones) they belong to."""
    names = ["audio", "image", "text"]
    values, rows = {}, {}
    for column, name in enumerate(names):
        at = [row for row, has in enumerate(present) if has[column]]
        if at:
            values[name] = torch.tensor([[10.0 * row + column] for row in at])
            rows[name] = torch.tensor(at)
    return Batch(values, rows, len(present))


tables = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8)


@given(tables, st.data())
def test_select_is_a_batch_of_the_selected(present: list[list[bool]], data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(present) - 1), max_size=10))
    chosen = batch(present).select(indices)
    assert chosen.size == len(indices)
    for column, name in enumerate(("audio", "image", "text")):
        at = [row for row, index in enumerate(indices) if present[index][column]]
        if not at:
            assert name not in chosen.values
            continue
        assert chosen.rows[name].tolist() == at
        expected = [10.0 * indices[row] + column for row in at]
        assert chosen.values[name][:, 0].tolist() == expected


@given(tables)
def test_present_is_the_table(present: list[list[bool]]) -> None:
    table = batch(present).present(("audio", "image", "text"))
    assert table.dtype == torch.bool
    assert table.tolist() == present


def test_present_follows_the_order_of_names_and_knows_strangers() -> None:
    table = batch([[True, False, True]]).present(("text", "depth", "image", "audio"))
    assert table.tolist() == [[True, False, False, True]]


def test_select_by_mask() -> None:
    chosen = batch([[True, True, False], [True, False, True], [False, True, True]]).select(
        torch.tensor([False, True, True])
    )
    assert chosen.size == 2
    assert chosen.values["text"][:, 0].tolist() == [12.0, 22.0]
    assert chosen.rows["audio"].tolist() == [0]


def test_select_nothing() -> None:
    chosen = batch([[True, True, True]]).select([])
    assert chosen.size == 0
    assert chosen.names == ()


def test_to_moves_values_and_rows() -> None:
    moved = batch([[True, True, False]]).to("meta")
    assert moved.names == ("audio", "image")
    assert {tensor.device.type for tensor in (*moved.values.values(), *moved.rows.values())} == {
        "meta"
    }
    assert moved.size == 1


def test_select_of_a_position_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        batch([[True, True, True]]).select([1])
