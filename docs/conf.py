"""Sphinx reads this. The pages come from `build.py`; name, version and addresses from settings.ini."""
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
import build

project, author, copyright = build.SETTINGS["lib_name"], build.SETTINGS["author"], build.SETTINGS["copyright"]
version = release = build.SETTINGS["version"]
root_doc, language = "index", "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["_static"]

# the outputs stored in the notebooks are shown; tests/check_notebooks.py sees to it that they are current
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
mathjax_path = "mathjax/tex-svg.js"
# a formula wider than the page scrolls by itself, and the page does not
mathjax3_config = {"svg": {"fontCache": "local"}, "options": {"enableMenu": False}}

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_display_short_literal_types = True
python_maximum_signature_line_length = 88

html_theme = "sphinx_book_theme"
html_title = build.SETTINGS["title"]
html_baseurl = build.SITE
html_static_path = ["static", "../_docs/source/_static"]
html_css_files = ["site.css"]
html_search_scorer = str(DOCS/"static/scorer.js")
html_favicon = html_logo = "static/icon.svg"
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = html_use_index = html_domain_indices = False
html_theme_options = {
    "repository_url": build.SETTINGS["git_url"],
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "logo": {"text": build.SETTINGS["title"]},
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "toc_title": "On this page",
}


def setup(app): app.connect("autodoc-process-docstring", build.process_docstring)
