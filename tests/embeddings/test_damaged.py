"""Units and files of embeddings that are not as they were written: one line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.embeddings.layout import ABOUT, About
from multimem_ray.embeddings.units import load_units
from multimem_ray.errors import StorageError
from tests.small import small_run


@pytest.mark.parametrize(
    "content",
    [b"", b"no parquet", b"{", b'{"joined": [], "spec": {}}', b"[" * 100_000],
    ids=["empty", "garbled", "cut", "of another kind", "deep"],
)
def test_damaged_units_are_one_line(tmp_path: Path, content: bytes) -> None:
    run, _ = small_run(tmp_path)
    place = Path(run.output, "units.parquet")
    place.parent.mkdir(parents=True)
    if content.startswith((b"{", b"[")):
        table = pa.table({"url": ["a"]}).replace_schema_metadata({b"multimem_ray": content})
        pq.write_table(table, place)
    else:
        place.write_bytes(content)
    with pytest.raises(StorageError, match=r"units\.parquet: .*remove it and run again") as caught:
        load_units(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", [b"{", b"[]", b'{"modle": 1}', b"[" * 100_000])
def test_what_a_file_says_of_itself_may_be_damaged(said: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        About.of(pa.schema([], {ABOUT: said}))
    assert About.of(pa.schema([])) is None
