"""The job on memory across modalities, at a size that says nothing of memory."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jobs.experiments.personas import study as personas
from jobs.experiments.personas.data import make_personas, render, write_personas
from multimem_ray.progress import Progress
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

TINY = personas.Size(people=16, meetings=1, tellings=1, epochs=1, width=4, seeds=1, asked=2)
QUIET = Progress(Console(file=io.StringIO()))


def test_people_are_the_same_again_and_no_two_are_alike() -> None:
    people = make_personas(3, 40)
    assert len({p.facts for p in people}) == 40
    again = make_personas(3, 40)[7]
    a = render(people[7], ("audio", "image", "text"), np.random.default_rng(0))
    assert a == render(again, ("audio", "image", "text"), np.random.default_rng(0))
    b = render(people[7], ("audio", "image", "text"), np.random.default_rng(1))
    assert all(a[extension] != b[extension] for extension in ("flac", "png"))
    assert all(fact in a["txt"].decode() for fact in people[7].facts)


def test_a_face_is_nearer_to_itself_than_to_others() -> None:
    people = make_personas(0, 12)

    def seen(number: int, draw: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        face = people[number].face(np.random.default_rng(draw))
        with Image.open(io.BytesIO(face)) as picture:
            # The middle, where there is no background, without the light.
            pixels = np.asarray(picture.crop((16, 12, 48, 52)).resize((8, 10)), np.float64)
        flat: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = pixels.reshape(-1) - pixels.mean()
        flat /= np.linalg.norm(flat)
        return flat

    first = np.stack([seen(n, 2 * n) for n in range(12)])
    second = np.stack([seen(n, 2 * n + 1) for n in range(12)])
    assert ((first @ second.T).argmax(axis=1) == np.arange(12)).mean() > 0.5


def test_samples_hold_what_was_asked_for(tmp_path: Path) -> None:
    write_personas(tmp_path, make_personas(0, 3), ("image",), meetings=2, tellings=1)
    items = list(read_shard(str(tmp_path / "personas-000000.tar"), Storage()))
    samples = [item for item in items if isinstance(item, Sample)]
    kinds = [sample.metadata()["kind"] for sample in samples]
    assert kinds == ["meeting", "meeting", "facts"] * 3
    for sample in samples:
        meeting = {"flac", "png", "json"}
        wanted = meeting if sample.metadata()["kind"] == "meeting" else {"png", "txt", "json"}
        assert set(sample.members) == wanted


@pytest.mark.timeout(300)
def test_the_job_sums_up_its_trials(tmp_path: Path) -> None:
    found = personas.run_all(tmp_path, TINY, QUIET)
    trial = tmp_path / "seed-0" / "face" / "trial.json"
    recall = json.loads(trial.read_text())["recall"]
    told, asked = recall["image"]["known"]["hits"], recall["audio"]["known"]["hits"]
    assert set(told) == set(asked)
    assert all(0 <= hit <= 1 for hits in told.values() for hit in hits)
    assert set(told) == set(recall["image"]["strangers"]["hits"]), "halves know other people"
    gap = np.mean([np.array(told[name]) - np.array(asked[name]) for name in told], axis=0)
    ours = found["conditions"]["face"]["gap"]
    assert [ours["R@1"]["value"], ours["R@5"]["value"]] == pytest.approx(gap.tolist())
    assert found["conditions"]["both"]["gap"] is None
    assert set(found["conditions"]["apart"]["multimem"]) >= {"facts", "meeting"}
    page = (tmp_path / "personas.html").read_text()
    assert page.count("<h2>") == 2

    before = trial.stat().st_mtime_ns
    assert personas.run_all(tmp_path, TINY, QUIET) == found
    assert trial.stat().st_mtime_ns == before
