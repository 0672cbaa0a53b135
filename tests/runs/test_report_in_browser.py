"""The report in headless Chromium: no errors, no requests, and a map that follows the pointer."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tfp_flowvae.cli import main

WIDTHS = {"phone": 390, "desktop": 1280}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a short run on labelled pictures."""
    home = tmp_path_factory.mktemp("browser")
    images = np.random.default_rng(0).integers(0, 2, size=(60, 8, 8, 1)).astype(bool)
    np.savez(home / "images.npz", images=images, labels=np.arange(60) % 3)
    small = ["--flow", "none", "--prior", "none", "--hidden", "8", "--latent-dim", "2", "--no-jit"]
    data = ["--dataset", str(home / "images.npz"), "--epochs", "2", "--verbose", "0"]
    assert main(["train", *small, *data, "--output", str(home / "run")]) == 0
    return home / "run" / "report.html"


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by its own driver, without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    # A container's root has no sandbox and little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=programs[1])
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(params=[(w, m) for w in WIDTHS for m in ("light", "dark")], ids="-".join)
def shown(request, browser, page):
    """The browser with the page, on a phone or a desktop, in light or dark mode."""
    device, mode = request.param
    size = {"width": WIDTHS[device], "height": 844, "deviceScaleFactor": 1}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {**size, "mobile": device == "phone"}
    )
    feature = {"name": "prefers-color-scheme", "value": mode}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.as_uri())
    return browser, device, mode


def test_it_fits_and_asks_for_nothing(shown):
    browser, device, mode = shown
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert requested
    assert all(url.startswith(("data:", "file:")) for url in requested)
    assert sum(url.startswith("file:") for url in requested) == 1
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= WIDTHS[device]
    unfit = browser.execute_script(
        "return [...document.images].filter(i => !i.alt || !i.getAttribute('width')"
        " || !i.getAttribute('height') || !i.complete || !i.naturalWidth"
        " || i.getBoundingClientRect().right > innerWidth).map(i => i.alt)"
    )
    assert unfit == []
    light = browser.execute_script(
        "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    )
    assert (light > 128) == (mode == "light")


def test_charts_follow_the_mode(browser, page):
    """The same chart on a transparent ground: dark lines in light mode, light ones in dark mode."""
    means = {}
    for mode in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": mode}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(page.as_uri())
        means[mode] = browser.execute_script(
            "const image = document.querySelector('#map img');"
            "const canvas = document.createElement('canvas');"
            "canvas.width = image.width; canvas.height = image.height;"
            "const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);"
            # The strip below the axes has only their text.
            "const data = context.getImageData(0, Math.round(0.95 * image.height),"
            " image.width, Math.round(0.05 * image.height)).data;"
            "let sum = 0, weight = 0;"
            "for (let i = 0; i < data.length; i += 4) {"
            " sum += data[i] * data[i + 3]; weight += data[i + 3]; }"
            "return sum / weight"
        )
    assert means["light"] < 100 < 150 < means["dark"]


def test_the_map_answers_to_pointer_and_keyboard(shown):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    browser, *_ = shown
    area = browser.find_element(By.ID, "map")
    decoded = browser.find_element(By.ID, "decoded")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", area)

    def state():
        place = decoded.value_of_css_property("background-position")
        return place, browser.find_element(By.ID, "place").text

    seen = [state()]
    for across in (-0.2, 0.0, 0.25):
        across = int(across * area.size["width"])
        ActionChains(browser).move_to_element_with_offset(area, across, 10).perform()
        seen.append(state())
        ActionChains(browser).move_to_element_with_offset(area, across, 60).perform()
        seen.append(state())
    assert len(set(seen)) == len(seen)
    browser.execute_script("arguments[0].focus()", area)
    before = state()
    ActionChains(browser).send_keys(Keys.ARROW_LEFT).perform()
    assert state() != before
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert state() == before
