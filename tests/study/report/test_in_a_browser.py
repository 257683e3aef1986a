"""The report as a browser shows it: Debian's `chromium`, driven by Playwright; axe looks for what shuts people out."""

import io
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from pypdf import PdfReader
from support.fabricated_study import fabricate

from study.report.rows import Comparison
from study.report.write import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (390, 768, 1440)  # a telephone, a tablet, a desk
A4, LETTER = (595, 842), (612, 792)  # points

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(Comparison.from_json(fabricate(folder)), folder, folder / "digits")


@pytest.fixture(params=["light", "dark"])
def page(browser, file, request):
    """The page with its figures drawn; fails on what the console says, and on any request to the network."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    shown, said, asked = context.new_page(), [], []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda one: asked.append(one.url))
    shown.goto(file.as_uri())
    expect(shown.locator("[data-figure]:not(:has(svg))")).to_have_count(0, timeout=30_000)
    yield shown
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def test_every_figure_is_drawn_and_no_button_sends_it_away(page):
    figures = page.locator("[data-figure]").count()
    assert figures >= 10
    titles = page.eval_on_selector_all(".modebar-btn", "buttons => buttons.map(b => b.dataset.title)")
    assert set(titles) == {"Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}
    assert len(titles) == 6 * figures


def test_nobody_is_shut_out(page):
    found = Axe().run(page).response["violations"]
    serious = [(one["id"], [node["html"][:90] for node in one["nodes"][:3]]) for one in found]
    assert serious == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_as_wide_as_its_window(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)  # figures follow the window
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_picture_is_enlarged_and_put_away_by_keys_alone(page):
    first = page.locator(".enlarge").first
    first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("p").inner_text() == first.locator("img").get_attribute("alt")
    assert dialog.locator("img").evaluate("i => i.naturalWidth") > 0
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def drawn(page, route):
    """How many figures draw a trace of the route."""
    return page.evaluate(
        "(route) => [...document.querySelectorAll('[data-figure]')].filter("
        "(p) => p.data.some((t) => t.meta === route && t.visible !== false)).length",
        route,
    )


def test_a_route_is_hidden_in_every_figure_and_in_the_table(page):
    row, box = page.locator("tr[data-route=scratch_e]"), page.locator("input[data-route=scratch_e]")
    before, others = drawn(page, "scratch_e"), drawn(page, "scratch_b")
    assert before >= 5 and row.is_visible()
    box.uncheck()
    assert (drawn(page, "scratch_e"), drawn(page, "scratch_b")) == (0, others) and not row.is_visible()
    box.check()
    assert drawn(page, "scratch_e") == before and row.is_visible()


def test_tables_sort_and_filter(page):
    table = page.locator("table.main")
    scores = "rows => rows.map(r => parseFloat(r.cells[CELL].textContent))"
    headings = page.eval_on_selector_all("table.main thead th", "cells => cells.map(c => c.textContent.trim())")
    cell = headings.index("AP")
    for direction in (-1, 1):
        table.locator("thead th").nth(cell).locator("button").click()
        values = page.eval_on_selector_all("table.main tbody tr", scores.replace("CELL", str(cell)))
        assert values == sorted(values, key=lambda v: direction * v) and len(set(values)) > 2
    rows = page.locator("#literature tbody tr")
    page.locator("#literature .filter input").fill("detect_from_scratch")
    assert 0 < rows.locator("visible=true").count() < rows.count()
    page.locator("#literature .filter input").fill("")
    assert rows.locator("visible=true").count() == rows.count()


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_on_paper_nothing_is_cut(page, paper):
    printed = PdfReader(io.BytesIO(page.pdf(format=paper, prefer_css_page_size=False)))
    columns = page.eval_on_selector_all("table.main thead th", "cells => cells.map(c => c.innerText.trim())")
    words, outside = [], []
    for sheet in printed.pages:
        width = float(sheet.mediabox.width)

        def place(text, matrix, position, *_, width=width):
            x = position[4] * matrix[0] + position[5] * matrix[2] + matrix[4]
            words.append(text)
            if text.strip() and not -1 <= x <= width:
                outside.append((text, x, width))

        sheet.extract_text(visitor_text=place)
    whole = "".join("".join(words).split())
    assert outside == []
    assert all("".join(column.split()) in whole for column in columns), columns
