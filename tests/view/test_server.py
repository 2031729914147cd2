"""The page of a run: what it lists, what it lets in, and that nothing of a sample runs."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.design.key_list import read_keys
from multimem_ray.storage import Storage
from tests.results.fake_run import FakeRun, fake_run
from tests.view.small_view import HOSTILE_KEYS, TOKEN, Visitor, visited, write_run


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def listed(self) -> list[str]:
        """Keys of the samples that are listed, by their checkboxes."""
        return [
            str(a["aria-label"])[5:] for t, a in self.tags if t == "input" and "aria-label" in a
        ]

    def link(self, name: str) -> str:
        """Where a button of the pages leads."""
        return next(str(a["href"]) for _, a in self.tags if a.get("data-key") == name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return write_run(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def visitor(run: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    picked = tmp_path_factory.mktemp("picked") / "list.parquet"
    with visited(run.output, selection=str(picked)) as made:
        yield made


def test_only_this_machine_with_the_token_is_let_in(visitor: Visitor) -> None:
    assert visitor.get("/", cookie=False).status == 403
    assert visitor.get("/?token=other", cookie=False).status == 403
    assert visitor.get("/static/view.js", cookie=False).status == 403
    for host in ("evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}"):
        assert visitor.get("/", headers={"Host": host}).status == 403
    first = visitor.get(f"/?token={TOKEN}", cookie=False)
    assert first.status == 303
    assert first.headers["Location"] == "/"
    assert "HttpOnly" in first.headers["Set-Cookie"]
    assert "SameSite=Strict" in first.headers["Set-Cookie"]
    assert visitor.get("/", headers={"Host": "localhost:{port}"}).status == 200


@pytest.mark.parametrize("path", ["/", "/nowhere", "/sample", "/?by=nothing", "/static/view.css"])
def test_the_policy_stands_on_every_answer(visitor: Visitor, path: str) -> None:
    headers = visitor.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"HX-Request": "true", "Origin": "http://evil.example"},
        {"HX-Request": "true", "Sec-Fetch-Site": "cross-site"},
        {"HX-Request": "true", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_foreign_page_can_pick(visitor: Visitor, run: FakeRun, headers: dict[str, str]) -> None:
    shard = run.rows[0]["shard"]
    assert visitor.pick((shard, "0_010"), headers=headers).status == 403
    assert len(visitor.view.selection) == 0


def test_hostile_keys_and_captions_are_text(visitor: Visitor, run: FakeRun) -> None:
    shard = run.rows[0]["shard"]
    pages = [visitor.get("/?by=cmc_out"), visitor.get("/?text=<")]
    for key in HOSTILE_KEYS:
        named = urlencode({"shard": shard, "key": key})
        pages += [visitor.get(f"/sample?{named}"), visitor.get(f"/peek?{named}")]
    for page in pages:
        assert page.status == 200
        for tag, attributes in Tags(page.text).tags:
            assert not any(name.startswith("on") for name in attributes)
            assert "style" not in attributes
            if tag == "script":
                assert str(attributes["src"]).startswith("/static/")
            for name in ("src", "href"):
                link = attributes.get(name) or ""
                assert not link or link.startswith(
                    ("/", "#", "data:,", "data:image/", "data:audio/")
                )
        assert "\u202e" not in page.text
    assert "&lt;script&gt;document" in pages[1].text
    assert "49" not in Tags(pages[1].text).listed()


def test_every_scored_sample_is_listed_once_from_page_to_page(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=3, rows=60, undefined=4)
    with visited(run.output) as visitor:
        for form in ("by=multimem", "by=cmc_out", "by=n_in&order=low"):
            seen, page, turns = list[str](), Tags(visitor.get(f"/?{form}").text), 0
            while True:
                seen += page.listed()
                if not any(a.get("data-key") == "n" for _, a in page.tags):
                    break
                turns += 1
                page = Tags(visitor.get(page.link("n")).text)
            back = Tags(visitor.get(page.link("p")).text)
            assert sorted(seen) == sorted(row["key"] for row in run.rows)
            assert turns == 3
            assert back.listed() == seen[100:150]


def test_the_list_is_ordered_and_filtered(visitor: Visitor, run: FakeRun) -> None:
    scored = [r for r in run.rows if r["multimem"] is not None]
    best = sorted(scored, key=lambda r: -r["multimem"])
    assert Tags(visitor.get("/?by=multimem").text).listed()[5:9] == [
        r["key"].replace("\u202e", " ") for r in best[5:9]
    ]
    counts = {
        "/count": len(run.rows),
        "/count?by=multimem&least=0.2": sum(r["multimem"] >= 0.2 for r in scored),
        "/count?by=cmc_out&most=0.4": sum((r["cmc_out"] or 9) <= 0.4 for r in run.rows),
        "/count?label=3": sum(r["label"] == "3" for r in run.rows),
        "/count?text=1_01": sum("1_01" in r["key"] for r in run.rows),
        "/count?text=DOCUMENT": 2,
        "/count?has=audio": len(run.rows),
        "/count?picked=yes": 0,
    }
    for path, count in counts.items():
        assert visitor.get(path).text.split()[0] == str(count), path
    parts = [int(visitor.get(f"/count?interval={i}").text.split()[0]) for i in ("above", "noise")]
    parts.append(int(visitor.get("/count?interval=below").text.split()[0]))
    assert sum(parts) == len(scored)


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ("by=nothing", "nothing"),
        ("by=key", "key"),
        ("least=much", "least"),
        ("q=nan", "q"),
        ("interval=odd", "interval"),
        ("has=smell", "has"),
        ("after=7", "after"),
        ("after=[1,2,3]", "after"),
        ('after=["a","b","c"]', "after"),
    ],
)
def test_a_wrong_field_is_named(visitor: Visitor, form: str, named: str) -> None:
    answer = visitor.get(f"/?{form}")
    assert answer.status == 400
    assert named in answer.text


def test_a_sample_is_shown_with_what_is_known_of_it(visitor: Visitor, run: FakeRun) -> None:
    row = run.rows[40 + 8]
    named = urlencode({"shard": row["shard"], "key": row["key"]})
    page = visitor.get(f"/sample?{named}").text
    for words in ("fits the others least", "By pair", "trained on it", "data:image/webp"):
        assert words in page
    assert "data:audio/mpeg" in page
    assert visitor.get("/sample?shard=/etc/passwd&key=a").status == 404
    assert visitor.get("/peek?shard=/etc/passwd&key=a").status == 404
    gone = urlencode({"shard": row["shard"], "key": "no-such"})
    assert visitor.get(f"/sample?{gone}").status == 404
    assert "cannot be shown" in visitor.get(f"/peek?{gone}").text


def test_near_duplicates_lead_to_each_other(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=2, rows=8)
    rows = [{"key": r["key"], "shard": r["shard"], "group": "g"} for r in run.rows[7:9]]
    pq.write_table(pa.Table.from_pylist(rows), f"{run.output}/duplicates.parquet")
    with visited(run.output) as visitor:
        first, second = (visitor.get(f"/sample?{urlencode(row)}").text for row in rows)
    assert "Near-duplicates" in first
    assert rows[1]["key"] in first
    assert rows[0]["key"] in second


def test_what_is_ticked_is_a_list_for_reshard(run: FakeRun, tmp_path: Path) -> None:
    url = str(tmp_path / "picked.parquet")
    rows = [run.rows[0], run.rows[41], run.rows[50]]
    samples = [(row["shard"], row["key"]) for row in rows]
    with visited(run.output, selection=url) as visitor:
        assert visitor.pick(*samples).status == 200
        assert "2 samples picked" in visitor.pick(samples[2], picked=False).text
        assert visitor.get("/count?picked=yes").text == "2 samples"
        assert visitor.pick(("/etc/passwd", "a")).status == 404
    listed = read_keys(url, Storage())
    assert listed.by_shard
    assert listed.contains([key for _, key in samples[:1]], samples[0][0]).all()
    assert pq.read_table(url).num_rows == 2
    with visited(run.output, selection=url) as visitor:
        assert len(visitor.view.selection) == 2
        assert visitor.get("/count?picked=no").text == "78 samples"


def test_shards_that_were_moved_are_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "before", shards=1, rows=8)
    row = run.rows[6]
    named = urlencode({"shard": row["shard"], "key": row["key"]})
    (tmp_path / "after").mkdir()
    Path(row["shard"]).rename(tmp_path / "after" / Path(row["shard"]).name)
    with visited(run.output) as visitor:
        assert "cannot be shown" in visitor.get(f"/peek?{named}").text
    with visited(run.output, data=str(tmp_path / "after")) as visitor:
        assert "data:image/webp" in visitor.get(f"/peek?{named}").text
