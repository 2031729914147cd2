"""The pages of docs/ say of the code what is true today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import PAGE, keys, page
from multimem_ray.config import Config
from multimem_ray.modalities import registry
from multimem_ray.store.schema import error_schema, score_schema
from tests.docs.blocks import PAGES, ROOT
from tests.small import small_run


def test_every_key_has_a_description() -> None:
    settings = {f"modalities.{name}.": registry.get(name).Settings for name in registry.names()}
    every = [*keys(Config), *(key for at, of in settings.items() for key in keys(of, at))]
    assert [key.name for key in every if not key.description] == []


def test_the_page_of_the_configuration_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make docs`, or python docs/generate.py"


def test_the_page_of_the_run_folder_has_every_column(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    text = (ROOT / "docs/run-folder.md").read_text()
    pairs = re.compile(rf"_({'|'.join(run.modalities)})_({'|'.join(run.modalities)})$")
    single = re.compile(rf"_({'|'.join(run.modalities)})$")
    columns = score_schema(run.modalities, 2).names
    names = [*columns, *error_schema().names, "gap", "gap_se"]
    told = {single.sub("_<modality>", pairs.sub("_<a>_<b>", name)) for name in names}
    assert {name for name in told if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_file_of_the_repository_that_is_named_is_there(path: Path) -> None:
    named = re.findall(r"`((?:multimem_ray|jobs|cluster|docs|tests)/[\w./-]*)`", path.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_a_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", path.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []
