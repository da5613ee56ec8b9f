"""The Python blocks of every page run as they stand, those of a page from top to bottom, as one program."""

import pathlib

import pytest
from mktestdocs import check_md_file, grab_code_blocks

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGES = [
    page for page in sorted(DOCS.glob("*.md")) if grab_code_blocks(page.read_text(encoding="utf-8"), lang="python")
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "devices"], ids=lambda page: page.stem)
def test_the_code_runs_from_top_to_bottom(page):
    check_md_file(page, memory=True)
