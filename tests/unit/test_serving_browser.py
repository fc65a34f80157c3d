"""The search page in a real browser: typed into, by keyboard alone, in the dark, on a narrow screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from late_interaction import ColBERTModel, LateInteractionPipeline
from late_interaction.sync import SyncPipeline

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.servers import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="there is no Chromium with its driver (Debian's packages chromium and chromium-driver)",
    ),
]

ROWS: list[dict[str, Any]] = [
    {"doc_id": "ferry", "content": "Tickets for the boat cost four euros.", "lang": "en", "year": 2020},
    {"doc_id": "dogs", "content": "Dogs travel free on every boat.", "lang": "en", "year": 2021},
    {"doc_id": "karten", "content": "Karten für das Boot kosten vier Euro.", "lang": "de", "year": 2020},
    {
        "doc_id": "bad",
        "content": "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>",
    },
    *(
        {"doc_id": f"more {n}", "content": f"Timetable {n} of the boat.", "lang": "en", "year": 2019}
        for n in range(9)
    ),
]


@pytest.fixture(scope="module")
def address(minilm: ColBERTModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("browsed")
    with SyncPipeline(folder, minilm) as pipeline:
        pipeline.index_documents(ROWS)
    with serving(LateInteractionPipeline(folder, minilm)) as address:
        yield address


class Browser:
    """A headless Chromium, and what a reader does with it."""

    def __init__(self, address: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
        self.address = address

    def look(self, width: int = 1200, *, dark: bool = False, script: bool = True) -> None:
        """Set the screen, the reader's scheme, and whether scripts run."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": name, "value": value} for name, value in features.items()]},
        )
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})

    def open(self, path: str = "/") -> None:
        self.driver.get(self.address + path)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector: str) -> None:
        """Press the tabulator until an element has the focus; it must show that it has."""
        for _ in range(60):
            self.press(Keys.TAB)
            focused = self.driver.switch_to.active_element
            if focused.tag_name == "body":  # behind the last element the browser's own come
                continue
            outline = focused.value_of_css_property("outline-style")
            assert outline != "none", focused.get_attribute("outerHTML")
            if self.driver.execute_script("return arguments[0].matches(arguments[1])", focused, selector):
                return
        pytest.fail(f"the tabulator does not reach {selector}")

    def wait(self, number: int) -> None:
        """Wait until the page says how many results there are."""
        WebDriverWait(self.driver, 30).until(
            lambda _: self.one("#status").text.startswith(f"{number} result")
        )

    def errors(self) -> list[Any]:
        return [line for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def _browser(address: str) -> Iterator[Browser]:
    browser = Browser(address)
    try:
        yield browser
    finally:
        browser.driver.quit()


@pytest.fixture
def browser(_browser: Browser) -> Browser:
    _browser.look()
    _browser.errors()
    return _browser


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as browsers write them, by WCAG."""

    def luminance(colour: str) -> float:
        parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [
            part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def over(colour: str, ground: str) -> str:
    """What is seen of a colour that lets some of the ground through."""
    top = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")]
    below = [float(part) for part in ground[ground.index("(") + 1 : -1].split(",")]
    alpha = top[3] if len(top) == 4 else 1.0
    mixed = [alpha * a + (1 - alpha) * b for a, b in zip(top[:3], below[:3], strict=True)]
    return f"rgb({', '.join(map(str, mixed))})"


def test_a_question_is_typed_and_the_words_that_answered_are_marked(browser: Browser) -> None:
    browser.open()
    assert browser.driver.switch_to.active_element.get_attribute("name") == "q"
    browser.press("price of a boat ticket", Keys.ENTER)
    browser.wait(10)
    marks = [mark.text for mark in browser.all("#results li:first-child mark")]
    assert {"Tickets", "boat", "cost"} <= set(marks)
    assert browser.driver.title.startswith("10 results for price of a boat ticket")
    assert "q=price+of+a+boat+ticket" in browser.driver.current_url
    # Without a new page: the words are where they were typed, and the live region is the one that was there.
    assert browser.driver.switch_to.active_element.get_attribute("name") == "q"
    browser.one("a[rel=next]").click()
    browser.wait(3)
    assert browser.one("ol.results").get_attribute("start") == "11"
    browser.driver.back()
    browser.wait(10)
    assert browser.one("input[name=q]").get_attribute("value") == "price of a boat ticket"
    assert browser.errors() == []


def test_documents_run_nothing(browser: Browser) -> None:
    for path in ("/?q=script+title", "/document?id=bad", "/explain?q=script&id=bad"):
        browser.open(path)
        assert "<img src=x" in browser.one("main").text
        assert "owned" not in browser.driver.title
        assert browser.all("main script, main img") == []
    assert browser.errors() == []


def test_all_of_it_works_by_keyboard_alone(browser: Browser) -> None:
    browser.open("/?q=dogs")
    browser.tab_to("a.skip")
    assert browser.one("a.skip").rect["x"] >= 0
    browser.tab_to("input[name=q]")
    browser.press(Keys.BACKSPACE * 9, "boat")
    browser.tab_to("input[name=mode]")
    browser.press(Keys.ARROW_RIGHT)  # to meaning and words
    browser.tab_to("input[name='in.lang']")
    browser.press(Keys.SPACE)
    browser.tab_to("section.filters button")
    browser.press(Keys.ENTER)
    browser.wait(10)
    assert "mode=hybrid" in browser.driver.current_url
    assert "in.lang=%22en%22" in browser.driver.current_url
    assert browser.one("input[name='in.lang'][value='\"en\"']").is_selected()
    assert browser.driver.switch_to.active_element.get_attribute("id") == "filters"
    browser.open("/?q=boat")
    browser.tab_to("article a[href^='/explain']")
    browser.press(Keys.ENTER)
    WebDriverWait(browser.driver, 30).until(lambda driver: "/explain" in driver.current_url)
    browser.tab_to(".li-text mark")
    shown = browser.driver.switch_to.active_element.find_element(By.CSS_SELECTOR, ".li-tip")
    assert shown.is_displayed()
    assert "of the score, with boat" in shown.text
    assert browser.errors() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_in_the_readers_scheme(browser: Browser, dark: bool) -> None:
    browser.look(dark=dark)
    browser.open("/?q=price+of+a+boat+ticket")
    card = browser.one(".results > li").value_of_css_property("background-color")
    is_dark = contrast(card, "rgb(0, 0, 0)") < 2
    assert is_dark == dark
    for selector in (".text", ".facts dt", ".score", ".head a"):
        colour = browser.one(f".results {selector}").value_of_css_property("color")
        assert contrast(colour, card) >= 4.5, selector
    for mark in browser.all(".results mark"):
        ground = over(mark.value_of_css_property("background-color"), card)
        assert contrast(mark.value_of_css_property("color"), ground) >= 4.5, mark.text
    button = browser.one("form button")
    colours = (button.value_of_css_property(name) for name in ("color", "background-color"))
    assert contrast(*colours) >= 4.5


def test_a_narrow_screen_has_one_column_and_nothing_outside_of_it(browser: Browser) -> None:
    browser.look(360)
    for path in ("/?q=boat", "/?q=boat&filter={", "/explain?q=boat&id=bad", "/document?id=bad"):
        browser.open(path)
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 360, path
    browser.open("/?q=boat")
    assert browser.one("#filters").rect["y"] > browser.one("#results").rect["y"]
    assert browser.one(".to-filters").is_displayed()
    browser.look(1200)
    assert browser.one("#filters").rect["x"] > browser.one("#results").rect["x"]
    assert not browser.one(".to-filters").is_displayed()


def test_without_a_script_the_page_does_the_same(browser: Browser) -> None:
    browser.look(script=False)
    try:
        browser.open("/")
        browser.one("input[name=q]").send_keys("price of a boat ticket", Keys.ENTER)
        WebDriverWait(browser.driver, 30).until(lambda driver: "q=price" in driver.current_url)
        browser.wait(10)
        assert "Tickets" in [mark.text for mark in browser.all("#results mark")]
    finally:
        browser.look()


def test_the_weight_of_words_is_there_where_words_and_meaning_are_searched(browser: Browser) -> None:
    browser.open("/?q=boat")
    browser.one(".filters summary").click()
    assert not browser.one("#weight").is_enabled()
    browser.one("input[value=hybrid]").click()
    browser.one("#weight").send_keys("0.9")
    browser.one("form button").click()
    WebDriverWait(browser.driver, 30).until(lambda driver: "weight=0.9" in driver.current_url)
    browser.one("input[value=late]").click()
    browser.one("form button").click()
    WebDriverWait(browser.driver, 30).until(lambda driver: "mode=late" in driver.current_url)
    browser.wait(10)
    assert "weight" not in browser.driver.current_url
