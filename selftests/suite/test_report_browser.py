"""The HTML report in a real browser: what is seen, by keyboard, with much in it, and not fooled."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from mlcheck.report import html
from mlcheck.report.model import Report
from selftests import reports

pytestmark = pytest.mark.slow

OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Debian's chromium without a window."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


CLOSED = "!document.getElementById('details').open && !location.hash"


class Page:
    """A report in the browser, in a window of that size."""

    def __init__(self, browser: webdriver.Chrome, directory: Path) -> None:
        self.browser = browser
        self._file = directory / "report.html"

    def open(self, report: Report, width: int = 1280, height: int = 900, at: str = "") -> None:
        self._file.write_text(html.page(report), encoding="utf-8")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.browser.get("about:blank")
        self.log("performance")
        self.browser.get(self._file.as_uri() + at)

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What the browser noted of that kind since the last time."""
        entries: list[dict[str, Any]] = self.browser.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def js(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)
            if key == Keys.ESCAPE:  # the page hears of it a moment after the dialog is closed
                self.wait(lambda: self.js(CLOSED))

    def wait(self, until: Callable[[], Any]) -> None:
        """Wait for what the page does after an event."""
        WebDriverWait(self.browser, 30).until(lambda _: until())

    @property
    def details(self) -> str:
        """What the open cell says; empty: none is open."""
        dialog = self.browser.find_element(By.ID, "details")
        return dialog.text if dialog.is_displayed() else ""


@pytest.fixture
def page(browser: webdriver.Chrome, tmp_path: Path) -> Page:
    return Page(browser, tmp_path)


# What is outside of the window, or cut off by what it lies in, of the matrix's cells.
UNSEEN = """[...document.querySelectorAll('.matrix tbody th, .matrix tbody td a')].filter(e => {
  const r = e.getBoundingClientRect();
  return r.left < 0 || r.right > arguments[0] || r.width < 20 || r.height < 20
    || e.scrollWidth > e.clientWidth + 1;
}).length"""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_matrix_is_readable(page: Page, width: int) -> None:
    page.open(reports.small(), width)
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.browser.execute_script(f"return {UNSEEN}", width) == 0
    assert page.js("document.querySelectorAll('.matrix tbody td a').length") == 13
    first = page.js("document.querySelector('.matrix td a.failed').getBoundingClientRect().bottom")
    assert first < 900, "what is red is not seen without scrolling"


@pytest.mark.parametrize("width", [1280, 390])
def test_many_images_scroll_in_their_frame(page: Page, width: int) -> None:
    page.open(reports.large(), width)
    assert page.js("document.documentElement.scrollWidth") <= width
    page.js("document.querySelector('.many').scrollBy(3000, 1500)")
    name, heading = page.js(
        "['.matrix tbody tr:nth-child(60) th', '.matrix thead th:last-child'].map("
        "s => { const r = document.querySelector(s).getBoundingClientRect();"
        " return [r.left, r.top, r.right]; })"
    )
    frame = page.js(
        "(r => [r.left, r.top, r.right])(document.querySelector('.many').getBoundingClientRect())"
    )
    assert frame[0] <= name[0] < frame[0] + 5, "the check's name scrolled away"
    assert frame[1] <= heading[1] < frame[1] + 5, "the images' names scrolled away"


def test_the_page_works_by_keyboard_alone(page: Page) -> None:
    page.open(reports.small())
    for _ in range(4):
        page.press(Keys.TAB)
        if page.js("document.activeElement.matches('.matrix td a')"):
            break
    label = "document.activeElement.getAttribute('aria-label')"
    assert page.js(label) == "rpath-hard-coded, ml-pyroot:alma9-python311@podman: passed"
    page.press(Keys.ARROW_RIGHT)
    assert page.js(label) == "rpath-hard-coded, ml-pyroot:alma9-python311@sandbox: failed"
    page.press(Keys.ENTER)
    assert "readelf -d /opt/conda/bin/root.exe" in page.details
    assert "Mend rpath-hard-coded." in page.details
    assert "tests/mini/image.toml:3" in page.details
    page.press(Keys.ESCAPE)
    assert not page.details
    assert "sandbox: failed" in page.js(label), "the focus is lost"
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, " ")  # where there is no cell, it is passed over
    assert "The rule of files." in page.details
    page.press(Keys.ESCAPE, Keys.END)
    assert page.js(label) == "files, jupyterlab-tensorflow:2.2.1@docker: waived"
    page.press(Keys.TAB)
    assert not page.js("document.activeElement.matches('.matrix td a')"), "Tab goes cell by cell"


def test_every_outcome_has_its_details(page: Page) -> None:
    page.open(reports.small())
    seen = {
        outcome: page.js(
            f"(() => {{ document.querySelector('.matrix a.{outcome}').click();"
            "const text = document.getElementById('details').innerText;"
            "document.getElementById('details').close(); return text; })()"
        )
        for outcome in ("failed", "error", "waived", "passed", "skipped")
    }
    assert "/opt/conda/bin/root.exe" in seen["failed"]
    assert "the machine has none" in seen["error"]
    assert "until 2999-12-31: soon" in seen["waived"]
    assert "The rule of rpath-hard-coded." in seen["passed"]
    assert "the machine has none" in seen["skipped"]


def test_a_link_to_a_cell_opens_it(page: Page) -> None:
    page.open(reports.small(), at="#r10")
    assert "readelf" in page.details
    page.press(Keys.ESCAPE)
    assert "#" not in page.js("location.href")


def test_a_command_is_copied(page: Page) -> None:
    page.open(reports.small(), at="#r10")
    page.browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]}
    )
    button = page.browser.find_element(By.CSS_SELECTOR, "#details .copy")
    button.click()
    page.wait(lambda: button.text == "Copied")
    copied = page.browser.execute_async_script(
        "const done = arguments[0];navigator.clipboard.readText().then(done, e => done(String(e)))"
    )
    assert copied == "readelf -d /opt/conda/bin/root.exe"


def test_checks_are_filtered(page: Page) -> None:
    page.open(reports.small())
    shown = "[...document.querySelectorAll('.matrix tbody tr')].filter(r => !r.hidden)"
    names = f"{shown}.map(r => r.cells[0].textContent)"
    page.browser.find_element(By.CSS_SELECTOR, "#filter select").send_keys("what is wrong")
    assert page.js(names) == ["rpath-hard-coded", "parity-packages", "imports"]
    page.browser.find_element(By.CSS_SELECTOR, "#filter input").send_keys("RPATH")
    assert page.js(names) == ["rpath-hard-coded"]
    page.browser.find_element(By.CSS_SELECTOR, "#filter input").send_keys("x")
    assert page.browser.find_element(By.ID, "none").is_displayed()


def test_thousands_of_results_need_few_elements(page: Page) -> None:
    """Two for a cell, none for its details; and rows out of sight are not laid out. How fluent
    scrolling is depends on these."""
    page.open(reports.large(50, 100))
    assert page.js("document.querySelectorAll('.matrix td a').length") == 5000
    before = page.js("document.querySelectorAll('*').length")
    assert before < 5000 * 2 + 50 * 15 + 100 * 25 + 100
    visible = (
        "[...document.querySelectorAll('.matrix tbody tr')]"
        ".filter(r => r.cells[1].querySelector('a').checkVisibility({contentVisibilityAuto: true}))"
        ".length"
    )
    assert 0 < page.js(visible) < 60
    page.js("document.querySelector('.matrix a').click()")
    assert page.js("document.querySelectorAll('*').length") < before + 100


def test_many_findings_are_shown_in_parts(page: Page) -> None:
    one = reports.image()
    many = tuple(reports.finding(f"/file/{n}") for n in range(5000))
    page.open(
        reports.report(reports.result(one, "files", "failed", findings=many), images=(one,)),
        at="#r0",
    )
    count = "document.querySelectorAll('#details article').length"
    assert page.js(count) == 50
    page.browser.find_element(By.XPATH, "//button[contains(., 'more of 4950')]").click()
    assert page.js(count) == 100


class _Trap(http.server.BaseHTTPRequestHandler):
    """Notes that somebody came."""

    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_hostile_image_neither_runs_nor_loads_anything(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Trap.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Trap) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        loads = f"<img src={url}/a onerror=window.hacked=1><link rel=stylesheet href={url}/b>"
        monkeypatch.setattr(reports, "HOSTILE", loads + reports.HOSTILE)
        page.open(reports.hostile())
        for link in page.browser.find_elements(By.CSS_SELECTOR, ".matrix td a"):
            link.click()
            assert "onerror=window.hacked=1" in page.details
            assert not {"\x1b", "\u202e"} & set(page.details)
            page.press(Keys.ESCAPE)
        assert page.js("window.hacked ?? null") is None
        assert page.js("document.querySelectorAll('img, link, iframe').length") == 0
        assert page.js("document.scripts.length") == 2
        # The policy holds even where markup got in.
        page.js(f"document.body.insertAdjacentHTML('beforeend', `<img src={url}/c>`)")
        page.browser.execute_async_script("setTimeout(arguments[0], 300)")
        server.shutdown()
    assert _Trap.asked == []
    log = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    sent = {
        entry["params"]["request"]["url"].partition(":")[0]
        for entry in log
        if entry["method"] == "Network.requestWillBeSent"
    }
    assert sent <= {"file", "http"}
    assert "file" in sent, "requests are not seen at all"


def test_the_console_shows_no_error(page: Page) -> None:
    page.log("browser")
    page.open(reports.small(), at="#r10")
    page.press(Keys.ESCAPE)
    assert page.log("browser") == []


CONTRAST = """(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parse(c).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const back = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  return [...document.querySelectorAll('h1, h2, h3, p, td, th, a.cell, a, span, li')]
    .filter(e => e.innerText && e.children.length === 0)
    .map(e => { const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort();
      return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 80)]; })
    .filter(([ratio]) => ratio < 4.5);
})()"""
"""Texts with less contrast than WCAG 2.1 AA asks for (1.4.3)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(page: Page, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.open(reports.small())
    back = page.js("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    assert page.js(CONTRAST) == []


def test_the_page_shows_the_essentials_without_scripts(page: Page) -> None:
    page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open(reports.small())
        body = page.browser.find_element(By.TAG_NAME, "body").text
    finally:
        page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for words in (
        "DOES NOT CONFORM",
        "rpath-hard-coded",
        "✕",
        "Mend rpath-hard-coded.",
        "package-3",
    ):
        assert words in body


def test_all_rows_are_printed(page: Page) -> None:
    page.open(reports.large(5, 100))
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        frame = page.js("getComputedStyle(document.querySelector('.many')).maxHeight")
        hidden = page.js("getComputedStyle(document.getElementById('filter')).display")
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert (frame, hidden) == ("none", "none")
