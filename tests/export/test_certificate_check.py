"""What is found when a certificate is checked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from multimem_ray.export.certificate import certify
from multimem_ray.export.certificate_check import check
from multimem_ray.storage import Storage
from tests.export.conftest import change_byte

STORAGE = Storage()


def test_whatever_is_changed_is_found(rewritten: tuple[str, str]) -> None:
    _, out = rewritten
    made = certify(out, STORAGE)
    place = Path(out, "certificate")
    old, new = (Path(made["shards"][0][side]["url"]) for side in ("before", "after"))
    for path, fault in (
        (new, "another file than was certified"),
        (old, "another file than was certified"),
        (place / "removed.parquet", "was changed after it was written"),
    ):
        kept, status = path.read_bytes(), path.stat()
        change_byte(path)
        assert any(f"{path}: {fault}" in one for one in check(out, STORAGE).faults)
        path.write_bytes(kept)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check(out, STORAGE).faults == []
    content = json.loads((place / "certificate.json").read_text())
    content["removed"] = 4
    (place / "certificate.json").write_text(json.dumps(content))
    (fault,) = check(out, STORAGE).faults
    assert "was changed after it was written" in fault
    certify(out, STORAGE)
    old.rename(old.with_suffix(".gone"))
    checked = check(out, STORAGE)
    assert checked.faults == []
    assert "not there any more" in checked.notes[0]
    new.unlink()
    assert check(out, STORAGE).faults == [f"{new}: gone"]


def test_a_removed_sample_that_came_back_is_found(rewritten: tuple[str, str]) -> None:
    _, out = rewritten
    made = certify(out, STORAGE)
    shutil.copy(made["shards"][0]["before"]["url"], made["shards"][0]["after"]["url"])
    faults = check(out, STORAGE).faults
    assert any("removed sample 's" in fault for fault in faults)
