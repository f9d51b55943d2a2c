"""The report in a real Chromium: it fetches nothing, says nothing, and its controls work."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import made_corpus
import pytest
from browser import Page, chromium
from engines import embedded_config

from localism.context import Context
from localism.progress import Progress
from localism.reporting import facts, page
from localism.store import Store

pytestmark = pytest.mark.component

FIGURES = {"parts", "curves", "map", "matrix", "uses", "sizes"}


@dataclass
class Opened:
    """A report that a browser shows."""

    file: Path
    browser: Page

    def run(self, script: str) -> Any:
        return self.browser.run(script)

    def rows(self, table: str, column: int) -> list[str]:
        """The shown cells of a column of the table that a selector finds."""
        return list(
            self.run(
                f"[...document.querySelector({table!r}).tBodies[0].rows].filter(row => !row.hidden)"
                f".map(row => row.cells[{column}].textContent.trim())"
            )
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    with Page(program, tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a made corpus with everything that a page can have."""
    folder = tmp_path_factory.mktemp("made")
    config = made_corpus.config_of(embedded_config)
    with Store(folder / "corpus.duckdb") as store:
        made_corpus.fill(store, config, made_corpus.Size(trainings=2))
        context = Context(config, store, folder, Progress(io.StringIO(), plain=True))
        written = folder / "report.html"
        written.write_text(page.render(facts.collect(context)))
    return written


@pytest.fixture
def opened(browser: Page, file: Path) -> Opened:
    """The report, newly loaded, on a light system and a wide screen."""
    browser.prefer("light")
    browser.resize(1100, 900)
    browser.open(file)
    if browser.run("localStorage.length"):  # a theme that an earlier test chose
        browser.run("localStorage.clear()")
        browser.open(file)
    browser.requests.clear()
    browser.messages.clear()
    return Opened(file, browser)


def frame() -> str:
    return "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 420])
def test_it_fetches_nothing_says_nothing_and_draws_every_figure(
    opened: Opened, scheme: str, width: int
) -> None:
    opened.browser.prefer(scheme)
    opened.browser.resize(width, 900)
    opened.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    opened.run(frame())
    opened.run(frame())
    empty = (
        "[...document.querySelectorAll('figure[data-plot]')]"
        ".filter(figure => figure.hidden || !figure.querySelector('svg [fill]'))"
        ".map(figure => figure.dataset.plot)"
    )
    assert opened.run(empty) == []
    drawn = opened.run("[...document.querySelectorAll('figure')].map(one => one.dataset.plot)")
    assert set(drawn) == FIGURES
    assert opened.run("document.documentElement.scrollWidth") == width
    opened.browser.open(opened.file)
    assert opened.browser.requests == [opened.file.as_uri()]
    assert opened.browser.messages == []
    assert opened.run("document.title") == "made: localism report"  # no text of a model has run


def test_a_table_that_is_too_wide_scrolls_in_a_box_that_shows_that_it_goes_on(
    opened: Opened,
) -> None:
    opened.browser.resize(500, 900)
    opened.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    wide = "[...document.querySelectorAll('table')].filter(one => one.offsetWidth > innerWidth)"
    boxes = f"{wide}.map(one => getComputedStyle(one.closest('.scroll')))"
    assert opened.run(f"{wide}.length") > 3
    assert opened.run(f"{boxes}.every(box => box.overflowX === 'auto')")
    shadow = "box.backgroundAttachment === 'local, local, scroll, scroll'"
    assert opened.run(f"{boxes}.every(box => {shadow})")


def test_the_policy_stops_a_request_and_a_script_that_are_not_the_pages_own(
    opened: Opened,
) -> None:
    assert opened.run(
        "fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)"
    ) == "TypeError"  # fmt: skip
    assert any("Content Security Policy" in one for one in opened.browser.messages)
    opened.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'document.title = 1'}))"
    )
    assert opened.run("document.title") == "made: localism report"


def test_the_witness_would_see_a_request_and_an_error(browser: Page, tmp_path: Path) -> None:
    outside = tmp_path / "page.html"
    outside.write_text('<img src="http://127.0.0.1:9/picture.png"><script>gone()</script>')
    browser.requests.clear()
    browser.messages.clear()
    browser.open(outside)
    assert "http://127.0.0.1:9/picture.png" in browser.requests
    assert any("gone is not defined" in one for one in browser.messages)


def test_tables_sort_by_keyboard_and_say_so(opened: Opened) -> None:
    skills = "#skill-table"
    opened.run("document.querySelector('#skill-table').closest('details').open = true")
    opened.run("document.querySelector('#skill-table th:nth-child(5) button').focus()")
    opened.browser.press("Enter", 13)
    header = "document.querySelector('#skill-table th:nth-child(5)').ariaSort"
    accepted = [int(cell) for cell in opened.rows(skills, 4)]
    assert accepted == sorted(accepted, reverse=True) and len(set(accepted)) > 2
    assert opened.run(header) == "descending"
    opened.browser.press("Enter", 13)
    accepted = [int(cell) for cell in opened.rows(skills, 4)]
    assert accepted == sorted(accepted) and accepted[0] == 0
    assert opened.run(header) == "ascending"
    opened.run("document.querySelector('#skill-table th:nth-child(1) button').click()")
    names = opened.rows(skills, 0)
    assert names == sorted(names)


def test_missing_values_come_last_whichever_way_a_table_is_sorted(opened: Opened) -> None:
    table = "#costs table"
    shown = opened.rows(table, 3)
    assert "–" in shown and len(set(shown)) > 1
    for _ in range(2):
        opened.run("document.querySelector('#costs th:nth-child(4) button').click()")
        cells = opened.rows(table, 3)
        assert cells[-1] == "–" and cells[0] != "–"


def test_a_long_table_shows_its_beginning_until_all_is_asked_for(opened: Opened) -> None:
    assert len(opened.rows("#skill-table", 0)) == 20
    opened.run(
        "document.querySelector('#skill-table').closest('details').querySelector('.more').click()"
    )
    assert len(opened.rows("#skill-table", 0)) == made_corpus.Size().skills


def test_looking_for_a_skill_narrows_the_table_and_fades_the_map(opened: Opened) -> None:
    faded = "document.querySelectorAll('[data-plot=map] circle[fill-opacity=\"0.1\"]').length"
    assert opened.run(faded) == 0
    opened.run(
        "{const input = document.querySelector('[data-map] input'); input.value = 'write';"
        " input.dispatchEvent(new Event('input', {bubbles: true}));}"
    )
    found = opened.rows("#skill-table", 0)
    assert found and len(found) < 20
    clusters = opened.rows("#skill-table", 1)
    assert all("write" in name + cluster for name, cluster in zip(found, clusters, strict=True))
    assert opened.run(faded) > 0
    assert opened.run("document.querySelector('#skill-table').closest('details').open")
    assert " of 40" in opened.run("document.querySelector('[data-map] output').textContent")


def test_examples_are_found_by_words_and_by_what_became_of_them(opened: Opened) -> None:
    kinds = (
        "[...document.querySelectorAll('#example-list > *')].filter(one => !one.hidden)"
        ".map(one => one.dataset.kind.split(' ')[0])"
    )
    assert set(opened.run(kinds)) == {"accepted", "rejected"}
    opened.run(
        "{const select = document.querySelector('[data-filter=example-list] select');"
        " select.value = 'rejected'; select.dispatchEvent(new Event('input', {bubbles: true}));}"
    )
    assert set(opened.run(kinds)) == {"rejected"}
    opened.run(
        "{const input = document.querySelector('[data-filter=example-list] input');"
        " input.value = 'not in any text'; input.dispatchEvent(new Event('input',"
        " {bubbles: true}));}"
    )
    assert opened.run(kinds) == []


def test_the_matrix_shows_what_is_asked_for(opened: Opened) -> None:
    painted = "document.querySelector('[data-plot=matrix] .legend').textContent"
    before = opened.run(painted)
    opened.run(
        "{const select = document.querySelector('[data-matrix] select'); select.value = 'even';"
        " select.dispatchEvent(new Event('input', {bubbles: true}));}"
    )
    assert "as even use" in opened.run(painted) != before


def test_pointing_at_a_skill_says_what_it_is(opened: Opened) -> None:
    opened.run("document.querySelector('[data-plot=map]').scrollIntoView({block: 'center'})")
    x, y = opened.run(
        "(({left, top, width}) => [left + width / 2, top + width / 2])("
        "document.querySelector('[data-plot=map] circle').getBoundingClientRect())"
    )
    for shift in (1, 0):
        opened.browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=x + shift, y=y)
    opened.run(frame())
    tip = opened.run("document.querySelector('[data-plot=map] [aria-label=tip]').textContent")
    assert "accepted" in tip


def test_the_theme_follows_the_system_until_the_reader_chooses(opened: Opened) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(back)
    opened.browser.prefer("dark")
    dark = opened.run(back)
    assert light != dark
    opened.run("document.getElementById('theme').click()")
    assert opened.run("document.getElementById('theme').textContent") == "Theme: light"
    assert opened.run(back) == light
    opened.browser.open(opened.file)
    assert opened.run(back) == light  # kept
    opened.run("document.getElementById('theme').click()")
    opened.browser.prefer("light")
    assert opened.run(back) == dark


def test_print_is_light_and_open(opened: Opened, tmp_path: Path) -> None:
    closed = "document.querySelectorAll('details:not([open])').length"
    assert opened.run(closed) > 0
    opened.run("addEventListener('beforeprint', () => { window.closedInPrint = " + closed + "; })")
    opened.browser.pdf(tmp_path / "report.pdf")
    assert opened.run("window.closedInPrint") == 0
    assert opened.run(closed) > 0  # and as it was, after
    opened.run("document.getElementById('theme').click()")
    opened.run("document.getElementById('theme').click()")
    assert opened.run("document.documentElement.dataset.theme") == "dark"
    opened.browser.command("Emulation.setEmulatedMedia", media="print")
    back = opened.run("getComputedStyle(document.body).backgroundColor")
    hidden = opened.run("getComputedStyle(document.querySelector('.bar')).display")
    opened.browser.command("Emulation.setEmulatedMedia", media="")
    assert (back, hidden) == ("rgb(255, 255, 255)", "none")


def test_the_skip_link_is_first_and_every_control_has_a_name(opened: Opened) -> None:
    opened.browser.press("Tab", 9)
    assert opened.run("document.activeElement.className") == "skip"
    nameless = (
        "[...document.querySelectorAll('button, input, select, summary, a')].filter(one =>"
        " !(one.textContent.trim() || one.labels?.[0]?.textContent.trim())).length"
    )
    assert opened.run(nameless) == 0
    doubled = (
        "(ids => ids.length - new Set(ids).size)"
        "([...document.querySelectorAll('[id]')].map(one => one.id))"
    )
    assert opened.run(doubled) == 0


def test_without_scripts_the_verdict_the_tables_and_the_texts_are_there(
    browser: Page, file: Path
) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(file)
        tree = browser.command("DOM.getDocument", depth=0)["root"]["nodeId"]

        def count(selector: str) -> int:
            found = browser.command("DOM.querySelectorAll", nodeId=tree, selector=selector)
            return len(found["nodeIds"])

        assert count("h1") == 1
        assert count("#skill-table tbody tr:not([hidden])") == made_corpus.Size().skills
        assert count("#example-list pre") > 20
        assert count(".filter:not([hidden]), #theme:not([hidden])") == 0
        assert count("noscript p") == count("figure[data-plot]") > 5
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
