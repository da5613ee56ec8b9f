"""The Python blocks of a page run as they stand, from top to bottom, as one program."""

import pathlib

import pytest
from mktestdocs import check_md_file

DOCS = pathlib.Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["your_own_data.md"])
def test_the_code_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_md_file(DOCS / page, memory=True)
