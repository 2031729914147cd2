from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from multimem_ray.report import write_report
from multimem_ray.results.catalogue import Catalogue
from multimem_ray.storage import Storage
from tests.report import fake_shards as fake
from tests.results.fake_run import FakeRun, fake_run
from tests.s3 import S3Server
from tests.small import QUIET

MODALITIES = ("audio", "image", "text", "video")


class Page(HTMLParser):
    """Every tag with its attributes, and the text that is seen."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.code: dict[str, str] = {}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"style", "script"}:
            self.code[self._inside] = data
        else:
            self.seen.append(data)

    def count(self, tag: str, kind: str = "") -> int:
        return sum(
            (t == tag and kind in (a.get("class") or "").split()) or (t == tag and not kind)
            for t, a in self.tags
        )


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    keys = [f"scene_{i:03d}" for i in range(40)]
    planted = {k: MODALITIES[i % 4] for i, k in enumerate(keys[:6])}
    parts = {k: fake.members(i) for i, k in enumerate(keys[:6])}
    parts |= {k: {"txt": b"plain", "jpg": b"no picture"} for k in keys[6:]}
    for k in planted:
        parts[k]["txt"] = fake.HOSTILE.encode()
    shard = fake.write_shard(tmp_path / "data" / "set-00000.tar", parts)
    return fake_run(
        tmp_path,
        shard_names=[shard],
        keys=[keys],
        planted_keys=planted,
        modalities=MODALITIES,
        labels=["rain", fake.HOSTILE],
    )


def test_page_is_whole_and_self_contained(run: FakeRun) -> None:
    stages = []
    url = write_report(
        run.output,
        Storage(),
        top=8,
        planted=run.truth,
        title=fake.HOSTILE,
        progress=lambda *step: stages.append(step),
    )
    html = Path(url).read_text(encoding="utf-8")
    page = Page(html)
    assert len(html) < 2_000_000
    assert page.count("article") == 12
    assert page.count("audio") >= 6
    assert page.count("img", "strip") >= 6
    text = " ".join(page.seen)
    for words in ("AUROC", "planted: text", "Read with care", "cmc_out", "scene_000"):
        assert words in text
    assert {"summary", "ranking", "samples"} == {name for name, _, _ in stages}
    assert json.loads(Path(run.output, "summary.json").read_text())["coverage"]["scored"] == 40


def test_hostile_captions_stay_text(run: FakeRun) -> None:
    html = Path(write_report(run.output, Storage(), title=fake.HOSTILE)).read_text("utf-8")
    page = Page(html)
    assert page.count("script") == 1
    assert page.count("style") == 1
    assert "alert" not in "".join(page.code.values())
    assert any("<script>alert(1)</script>" in words for words in page.seen)
    assert "\u202e" not in html
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_nothing_is_loaded_and_the_policy_forbids_it(run: FakeRun) -> None:
    html = Path(write_report(run.output, Storage())).read_text("utf-8")
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "data:audio/", "#")), tag
    assert "url(" not in page.code["style"]
    assert "@import" not in page.code["style"]
    policy = next(
        a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for part in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.code[part].encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize(
    ("kind", "models"), [("complementary_halves", 2), ("leave_subset_out", 5), ("candidate", 6)]
)
def test_every_design_and_lost_shards(tmp_path: Path, kind: str, models: int) -> None:
    run = fake_run(tmp_path, kind=kind, models=models, modalities=("image", "text"), undefined=3)
    html = Path(write_report(run.output, Storage(), top=3)).read_text("utf-8")
    text = " ".join(Page(html).seen)
    assert "The content cannot be shown" in text
    assert ("no standard error" in text) == (kind != "candidate")
    assert ("candidates: seen by f only" in text) == (kind == "candidate")
    assert not re.search(r"\b(None|nan|Undefined)\b", text)


def test_a_run_without_scores(tmp_path: Path) -> None:
    html = Path(write_report(str(tmp_path / "run"), Storage())).read_text("utf-8")
    assert "No sample has been scored yet." in html


def test_same_page_twice(run: FakeRun) -> None:
    first = Path(write_report(run.output, Storage())).read_bytes()
    assert Path(write_report(run.output, Storage())).read_bytes() == first


def test_everything_on_s3(tmp_path: Path, s3_server: S3Server) -> None:
    storage, root = s3_server.storage, s3_server.bucket()
    shard = fake.write_shard(tmp_path / "set-00000.tar", {"a": fake.members(0, video=False)})
    run = fake_run(tmp_path, shard_names=[f"{root}/set-00000.tar"], keys=[["a"]])
    storage.write_atomic(f"{root}/set-00000.tar", Path(shard).read_bytes())
    for file in Path(run.output).rglob("*.*"):
        url = f"{root}/run/{file.relative_to(run.output).as_posix()}"
        storage.write_atomic(url, file.read_bytes())
    url = write_report(f"{root}/run", storage)
    assert url == f"{root}/run/report.html"
    page = Page(storage.read_bytes(url).decode())
    assert page.count("img", "picture") == 2
    assert fake.caption(0) in " ".join(page.seen)


def test_domains_are_shown_when_asked_for_and_when_catalogued(
    finished: str, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("catalogue"))
    html = Path(write_report(str(copy), Storage(), top=1)).read_text("utf-8")
    assert 'id="domains"' not in html
    html = Path(write_report(str(copy), Storage(), top=1, by=["shard"])).read_text("utf-8")
    assert "<h3>shard</h3>" in html
    Catalogue(str(copy), Storage()).ensure(["json.source"], QUIET)
    text = " ".join(Page(Path(write_report(str(copy), Storage(), top=1)).read_text("utf-8")).seen)
    for words in ("host of json.url", "host1.example", "json.source", "tape-3"):
        assert words in text
    assert not re.search(r"\b(None|nan|Undefined)\b", text)
