"""Debian's chromium, driven through its own driver: what looks at the report as a person would.

A test that imports this is skipped where they, or selenium, are not installed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium or chromedriver is not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

PHONE, DESKTOP = (390, 844), (1280, 900)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    # What asked for the network would fail, and be seen in the log.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


class Browser:
    """A page in chromium, and what a person would do with it."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))

    def command(self, name: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, parameters)

    def open(
        self, page: Path, size: tuple[int, int] = DESKTOP, media: str = "", dark: bool = False
    ) -> None:
        width, height = size
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height,
                     deviceScaleFactor=1, mobile=False)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                    {"name": "prefers-reduced-motion", "value": "reduce"}]  # fmt: skip
        self.command("Emulation.setEmulatedMedia", media=media, features=features)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # those of the page before
        self.driver.get(page.as_uri())

    def unpack(self) -> None:
        """Open all that opens on demand."""
        self.wait_for("openAll()")

    def unpack_paper(self, name: str) -> None:
        """Open what a paper has, on a page where all that opens on demand would take minutes."""
        self.wait_for(
            """(async paper => {
                fold(paper, false);
                for (const claim of paper.querySelectorAll("[data-verdict]")) await card(claim);
                for (const drawer of paper.querySelectorAll(".drawer")) await openDrawer(drawer);
            })(document.getElementById(arguments[0]))""",
            name,
        )

    def wait_for(self, promise: str, *values: Any) -> None:
        """Fail unless the page keeps a promise, of nothing, within a minute."""
        self.driver.set_script_timeout(60)
        script = f"const done = [...arguments].at(-1); {promise}.then(done, done)"
        assert self.driver.execute_async_script(script, *values) is None

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, found: Callable[[Any], bool], most: int = 120) -> Any:
        """Press Tab until the focus is on what is wanted."""
        for _ in range(most):
            self.press(Keys.TAB)
            if found(self.driver.switch_to.active_element):
                return self.driver.switch_to.active_element
        raise AssertionError("the keyboard does not get there")

    def shown(self) -> list[str]:
        """Return the claims that the board shows, in order."""
        return list(self.run(
            "return [...document.querySelectorAll('.board tr[data-verdict]')]"
            ".filter(r => r.checkVisibility()).map(r => r.dataset.name)"
        ))  # fmt: skip

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events
                if e["method"] == "Network.requestWillBeSent"]  # fmt: skip


def saved(browser: Browser, name: str, folder: Path) -> str:
    """Save the CSV of a figure or table of the page that is open, and return its text."""
    browser.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    link = browser.driver.find_element(By.CSS_SELECTOR, f".csv:has(+ [data-name='{name}.csv'])")
    browser.run("arguments[0].focus()", link)
    browser.press(Keys.ENTER)
    file = folder / f"{name}.csv"
    until = time.monotonic() + 20
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return file.read_text("utf-8")


def check_with_axe(browser: Browser, part: str = "body") -> None:
    """Let axe-core look at the page that is open, with all details of ``part`` unfolded."""
    spec = find_spec("axe_playwright_python")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("axe-playwright-python, which has a copy of axe-core, is not installed")
    axe = Path(spec.submodule_search_locations[0]) / "axe.min.js"
    browser.run(f"for (const d of document.querySelectorAll('{part} details')) d.open = true")
    browser.driver.set_script_timeout(120)
    browser.run(axe.read_text("utf-8"))
    result = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(done, done)"
    )
    found = {v["id"]: [node["html"][:160] for node in v["nodes"][:4]] for v in result["violations"]}
    assert found == {}, found
    assert len(result["passes"]) > 20  # that it looked at all
