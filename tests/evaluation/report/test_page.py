"""The page: complete, self-contained, and in headless Chromium without errors or requests."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae import FlowVAE
from tfp_flowvae.evaluation.report import Subject, render

WIDTHS = {"phone": 390, "desktop": 1280}
DENSITIES = ("log_base", "log_posterior", "log_det", "log_prior")


def subject_of(images, labels=None, history=None, **parts):
    vae = FlowVAE(image_shape=images.shape[1:], encoder="mlp:8", decoder="mlp:8", **parts)
    return Subject(
        name="a <run>",
        model=vae,
        test=images[:20],
        train=images[20:],
        labels=labels,
        dataset="pictures",
        binarization="none",
        free_energy={"free_energy": 25.0, "log_likelihood": -20.0, "kl": 5.0},
        counts={"train": 20, "valid": 0, "test": 20},
        seed=0,
        history=history or {},
        evaluation=None,
        settings={"base": "normal", "flow": "planar:2", "prior": "mixture:2"} if history else {},
        record={"epochs": 2} if history else {},
        commands={"This repeats the run": "python -m tfp_flowvae train --config config.json"},
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The page of a run of two epochs on images with labels."""
    rng = np.random.default_rng(0)
    images = (rng.random((40, 8, 8, 1)) > 0.5).astype(np.float32)
    names = ["elbo", "val_elbo", "kl", "val_kl", "log_likelihood", "val_log_likelihood"]
    names += [f"{name}{end}" for name in DENSITIES for end in ("", "_std")]
    names += ["active_units", "mutual_information", "base_kl_0", "base_kl_1", "base_kl_2"]
    history = {"epoch": np.arange(1.0, 3.0), **{name: rng.random(2) for name in names}}
    labels = (np.arange(20) % 3).astype(str)
    subject = subject_of(
        images, labels, history, latent_size=3, posterior="planar:2", prior="mixture:2"
    )
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render(subject), encoding="utf-8")
    return file


class Page(HTMLParser):
    """The images and the text of a page, and the addresses that it names."""

    def __init__(self, text):
        super().__init__()
        self.images, self.addresses, self.text = [], [], ""
        self.feed(text)
        for image in self.images:
            assert image["alt"]
            assert int(image["width"]) > 0
            assert int(image["height"]) > 0
        assert all(address.startswith("data:") for address in self.addresses)
        assert "nan" not in self.text.lower().split()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            self.images.append(values)
        self.addresses += [values[name] for name in ("src", "href") if name in values]

    def handle_data(self, data):
        self.text += re.sub(r"\s+", " ", data)


def test_a_page_has_every_section(full):
    page = Page(full.read_text(encoding="utf-8"))
    # 4 temperatures, 2 x 2 rows of reconstructions, 5 paths, 3 traversals, the map, 4 rows of
    # neighbours, 3 pairs of dimensions, 5 curves, 4 log-densities, 2 of KLs.
    assert len(page.images) == 4 + 4 + 5 + 3 + 1 + 4 + 3 + 5 + 4 + 2
    for words in (
        "a <run>",
        "posterior q(z|x) is planar:2, and its prior p(z) is mixture:2. It was trained for 2 "
        "epochs on 20 images",
        "planar: K planar layers",
        "mixture: mixture of K normals, all learned.",
        "T = 0.75",
        "0 to 1",
        "Colours are labels",
        "-log p(x), the gaps and the sample quality take a minute or more, and were left out",
        '"flow": "planar:2"',
        "As in figure 4 of the study, centre",
    ):
        assert words in page.text


def test_a_page_of_an_export_without_labels_in_one_dimension():
    """Colour images, a prior without a mean, and nothing known of the training."""
    images = np.random.default_rng(0).random((40, 6, 9, 3)).astype(np.float32)
    heavy = tfd.Independent(tfd.Cauchy(tf.zeros(1), 1.0), 1)
    page = Page(render(subject_of(images, latent_size=1, prior=heavy, likelihood="gaussian")))
    for words in (
        "It is evaluated on images of pictures (6 × 9 pixels, colour).",
        "This prior has no temperature.",
        "The images have no labels, so all points have one colour.",
        "There is one latent dimension",
        "There is no history.csv",
        "There is no config.json",
    ):
        assert words in page.text


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


def show(browser, file, mode, device="desktop"):
    size = {"width": WIDTHS[device], "height": 844, "deviceScaleFactor": 1}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {**size, "mobile": device == "phone"}
    )
    feature = {"name": "prefers-color-scheme", "value": mode}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(file.as_uri())


@pytest.fixture(params=[(w, m) for w in WIDTHS for m in ("light", "dark")], ids="-".join)
def shown(request, browser, full):
    """The browser with the page, on a phone or a desktop, in light or dark mode."""
    device, mode = request.param
    show(browser, full, mode, device)
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
    paper = browser.execute_script(
        "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert (paper[0] > 128) == (mode == "light")


def test_charts_follow_the_mode(browser, full):
    """The text of a chart is dark in light mode and light in dark mode."""
    means = {}
    for mode in ("light", "dark"):
        show(browser, full, mode)
        means[mode] = browser.execute_script(
            "const image = document.querySelector('#map img');"
            "const canvas = document.createElement('canvas');"
            "canvas.width = image.width; canvas.height = image.height;"
            "const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);"
            # The strip below the axes has only their text, on a transparent ground.
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
        for down in (10, 60):
            x = int(across * area.size["width"])
            ActionChains(browser).move_to_element_with_offset(area, x, down).perform()
            seen.append(state())
    assert len(set(seen)) == len(seen)
    browser.execute_script("arguments[0].focus()", area)
    before = state()
    ActionChains(browser).send_keys(Keys.ARROW_LEFT).perform()
    assert state() != before
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert state() == before
