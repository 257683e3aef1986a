"""The report as Chromium shows it: what its figures offer, and what it complains of. Needs Debian's `chromium`."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from support.fabricated_study import fabricate

from study.report.rows import Comparison
from study.report.write import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --virtual-time-budget=20000 --enable-logging=stderr --v=0"
).split()

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")


class Figures(HTMLParser):
    """The buttons and the number of drawn figures of a page."""

    def __init__(self, text):
        super().__init__()
        self.buttons, self.drawn = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if "modebar-btn" in (named.get("class") or "").split():
            self.buttons.append(named.get("data-title"))
        self.drawn += (named.get("class") or "").split().count("main-svg") and "svg-container" not in named["class"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The page after its scripts ran, and what the console said."""
    folder = tmp_path_factory.mktemp("report")
    page = write_report(Comparison.from_json(fabricate(folder)), folder, folder / "digits")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def test_figures_are_drawn_and_nothing_is_complained_of(shown):
    page, console = shown
    assert Figures(page).drawn >= 10 and console == []


def test_no_button_sends_a_chart_away(shown):
    """The list is what the page asks for: a new one of the library's own would show here."""
    buttons = set(Figures(shown[0]).buttons)
    assert buttons == {"Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}
