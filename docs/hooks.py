"""What MkDocs needs to make a site of pages that also read well in the repository.

Links out of docs/, formulas, doctests and the notebook are written as GitHub shows them, and are changed here as the
site is built. mkdocs.yml names this file twice: as a hook of MkDocs, and as an extension of Griffe, which reads
docstrings.
"""

import logging
import pathlib
import re
from html import unescape
from xml.etree import ElementTree

import griffe
import nbconvert
import ziafont
import ziamath
from mkdocs.structure.files import File

ziafont.config.svg2 = False  # each drawing holds its own glyphs, rather than refer to those of another by their names

LOG = logging.getLogger("mkdocs.hooks")
ROOT = pathlib.Path(__file__).parent.parent
PAGES = {  # of the site, by the files outside docs/ that they are made of
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "examples/quickstart.ipynb": "quickstart.md",
}


def on_files(files, config):
    for path, page in PAGES.items():
        text, pictures = (ROOT / path).read_text(encoding="utf-8"), {}
        if path.endswith(".ipynb"):
            text, resources = nbconvert.MarkdownExporter().from_filename(ROOT / path)
            pictures = resources["outputs"]
        for name, content in {page: text, **pictures}.items():
            files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files outside docs/ lead to their page here or to the repository, or are but text where it has no
    address."""

    def link(match):
        text, path, anchor = match.groups()
        anchor = anchor or ""
        if not (ROOT / path).exists():
            LOG.warning("'%s' links to '%s', which is not there", page.file.src_uri, path)
        if path.startswith("docs/"):
            return f"[{text}]({path.removeprefix('docs/')}{anchor})"
        if path in PAGES:
            return f"[{text}]({PAGES[path]}{anchor})"
        return f"[{text}]({config.repo_url}/blob/HEAD/{path}{anchor})" if config.repo_url else text

    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)(#[^)]*)?\)", link, markdown)


def on_page_content(html, page, config, files):
    """Formulas as drawings: the same in every browser, whatever fonts it has, and without a script."""

    def drawing(match):
        tag, latex = match.groups()
        latex = unescape(re.sub(r"^\\[(\[]|\\[)\]]$", "", latex.strip())).strip()
        formula = ziamath.Latex(latex, size=18, color="currentColor", inline=tag == "span")
        svg = formula.svgxml()
        svg.set("style", f"vertical-align: {formula.getyofst() - formula.margin:.2f}px")
        svg.set("role", "img")
        svg.set("aria-label", latex)
        return f'<{tag} class="formula">{ElementTree.tostring(svg, encoding="unicode")}</{tag}>'

    html = re.sub(r'(<li class="doc-section-item field-body">)\s*–', r"\1", html)  # what is returned has no name
    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', drawing, html, flags=re.S)


class Doctests(griffe.Extension):
    """Doctests as code. They stand below "Example:" without indentation, as in Keras, where Markdown sees
    quotations."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            text = re.sub(r"^((?:>>>|\.\.\.) .*\n?(?:.+\n?)*)", r"```pycon\n\1\n```\n", obj.docstring.value, flags=re.M)
            obj.docstring.value = text.replace("Example:\n\n```", "**Example**\n\n```")
