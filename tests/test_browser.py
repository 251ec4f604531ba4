"""The course in JupyterLab and as pages, in a real browser."""

import functools
import http.server
import itertools
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import nbformat
import numpy as np
import pytest
from scipy import stats

sync_api = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.timeout(600)

CLICKS = """
import time

import ipywidgets as widgets

from spinet.figures.style import new_figure
from spinet.notebook import explore

drawn = widgets.Label()
times = 0


def draw(number, point):
    global times
    times += 1
    time.sleep(0.4)
    if number == 9:
        raise ValueError("nine is too many")
    drawn.value = f"{times} drawn, number {number}, point {point[0]:.1f} {point[1]:.1f}"
    figure = new_figure(7, 2)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.25, 0.25, 0.5, 0.5), xlim=(0, 100), ylim=(0, 10))
    axes.plot([0, 10 * number], [0, 10])
    return figure


explore(draw, point=(50, 5), description="a line", number=widgets.IntSlider(1, 0, 9, continuous_update=False))
display(drawn)
"""


@pytest.fixture(scope="module")
def browser():
    """Chromium: the system's, or the one that Playwright downloaded."""
    with sync_api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium: apt-get install chromium, or python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, with its errors and its requests to other machines."""

    def __init__(self, browser, home, width=1280):
        self.complaints = []
        self.home = home
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(120_000)
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", lambda answer: answer.status >= 400 and self.complaints.append(answer.url))
        self.page.on("request", self._request)

    def _request(self, request):
        if not request.url.startswith((self.home, self.home.replace("http", "ws", 1), "data:", "blob:")):
            self.complaints.append(request.url)


# --- JupyterLab -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the course for the tests."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copytree(ROOT / "figures", folder / "figures")
    cell = nbformat.v4.new_code_cell(CLICKS.strip())
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), folder / "clicks.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(course, tmp_path_factory):
    """Address of a JupyterLab that serves the course only on this machine, with its own settings."""
    own = tmp_path_factory.mktemp("jupyter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    settings = own / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={course}"),
        *(f"--LabApp.user_settings_dir={own / 'settings'}", f"--LabApp.workspaces_dir={own / 'workspaces'}"),
    ]
    kept = {
        "SPINET_PAGES": "1",
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTER_CONFIG_DIR": str(own / "config"),
    }
    with open(own / "log", "w") as log:
        server = subprocess.Popen(command, env=os.environ | kept, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}api/status?token={token}").close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (own / "log").read_text()  # noqa: PT018
                time.sleep(0.2)
        yield address, token
    finally:
        server.terminate()  # stops its kernels, too
        server.wait(30)


def run_all(browser, lab, path, width=1280):
    """Opens a notebook in JupyterLab, runs all its cells and saves it."""
    address, token = lab
    visit = Visit(browser, address, width)
    workspace = Path(path).stem  # a separate one: otherwise earlier tabs open again
    visit.page.goto(f"{address}lab/workspaces/{workspace}/tree/{path}?token={token}")
    visit.page.wait_for_function("() => window.jupyterapp")
    visit.page.evaluate(
        """async path => {
          const app = window.jupyterapp;
          await app.restored;
          window.panel = await app.commands.execute("docmanager:open", {path});
          await panel.context.ready;
          await panel.context.sessionContext.ready;
          app.shell.activateById(panel.id);
          if (app.shell.leftCollapsed === false) app.shell.collapseLeft();
          await app.commands.execute("notebook:run-all-cells");
          await panel.context.save();
        }""",
        path,
    )
    notebook = visit.page.evaluate("() => panel.content.model.toJSON()")
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in codes)
    assert not [output for cell in codes for output in cell["outputs"] if output["output_type"] == "error"]
    return visit


def picture_changes(page, picture, act):
    """Runs an action and waits until the image changes."""
    before = picture.get_attribute("src")
    act()
    handle = picture.element_handle()
    page.wait_for_function("([image, before]) => image.src !== before && image.complete", arg=[handle, before])
    assert page.evaluate("image => image.naturalWidth", handle) > 300


@pytest.fixture(scope="module")
def quickstart(browser, lab):
    return run_all(browser, lab, "notebooks/00_quickstart.ipynb")


@pytest.fixture(scope="module")
def triplets(browser, lab):
    return run_all(browser, lab, "notebooks/40_auxiliary_tasks.ipynb")


@pytest.mark.parametrize("notebook", ["quickstart", "triplets"])
def test_a_slider_redraws(request, notebook):
    visit = request.getfixturevalue(notebook)
    page = visit.page
    picture = page.locator(".spinet-picture img").first
    picture.scroll_into_view_if_needed()
    assert picture.get_attribute("alt")
    slider = page.locator(".widget-hslider").first.locator(".noUi-handle")
    slider.focus()
    picture_changes(page, picture, lambda: slider.press("End"))
    assert page.locator(".spinet-picture pre").first.is_hidden()
    assert not visit.complaints


@pytest.fixture(scope="module")
def clusters(browser, lab):
    return run_all(browser, lab, "notebooks/60_feature_clustering.ipynb")


def test_a_click_on_a_scene_shows_other_distances(clusters):
    page = clusters.page
    picture = page.locator(".spinet-picture img").first
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    at = {"x": 0.2 * box["width"], "y": 0.3 * box["height"]}  # in the image, left above in the figure
    picture_changes(page, picture, lambda: picture.click(position=at))
    assert page.locator(".spinet-picture pre").first.is_hidden()
    assert not clusters.complaints


@pytest.fixture(scope="module")
def clicks(browser, lab):
    return run_all(browser, lab, "clicks.ipynb", width=700)


def test_a_click_gives_the_data_coordinates_of_a_picture_that_is_scaled_down(clicks):
    page = clicks.page
    picture = page.locator(".spinet-picture img")
    box = picture.bounding_box()
    assert box["width"] < 650  # of 770
    assert box["width"] / box["height"] == pytest.approx(7 / 2, rel=0.01)
    at = {"x": box["width"] * (0.25 + 0.5 * 0.3), "y": box["height"] * (0.25 + 0.5 * 0.2)}
    page.get_by_text("point 50.0 5.0").wait_for()
    picture.click(position=at)
    said = page.get_by_text(re.compile(r"^\d+ drawn, number \d, point [^5]"))
    x, y = map(float, said.inner_text().split()[-2:])
    assert (x, y) == (pytest.approx(30, abs=0.4), pytest.approx(8, abs=0.15))  # half a pixel
    assert not clicks.complaints


def test_changes_are_not_queued_and_errors_are_shown(clicks):
    """Nine quick steps do not draw nine images; an error of the last one is shown until the next success."""
    page = clicks.page
    slider, message = page.locator(".noUi-handle"), page.locator(".spinet-picture pre")
    drawn = page.get_by_text(re.compile(r"^\d+ drawn"))
    before = int(drawn.inner_text().split()[0])
    slider.focus()
    for _ in range(9):
        slider.press("ArrowRight")
    page.get_by_text("ValueError: nine is too many").wait_for()
    assert message.is_visible()
    slider.press("ArrowLeft")
    page.get_by_text(re.compile(r"number 8")).wait_for()
    page.wait_for_function("() => document.querySelector('.spinet-picture pre').hidden")
    assert int(drawn.inner_text().split()[0]) - before <= 6
    assert not clicks.complaints


def test_a_figure_at_the_end_of_a_cell_is_shown_in_its_size(quickstart):
    image = quickstart.page.locator(".jp-OutputArea-output img").first
    assert image.get_attribute("width") == "770"
    assert quickstart.page.evaluate("image => image.naturalWidth", image.element_handle()) == 1540


# --- the pages --------------------------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(quickstart, triplets, clusters, course, tmp_path_factory):
    """Folder and address of the course as pages: 00, 40, 60 executed by JupyterLab, 33, 54 by papermill."""
    folder = tmp_path_factory.mktemp("pages") / "site"
    for name in ("33_panoptic_feature", "54_ablations"):
        executed = course / "notebooks" / f"{name}.ipynb"
        execute = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", executed.parent, executed, executed]
        subprocess.run(execute, env=os.environ | {"SPINET_PAGES": "1"}, check=True, capture_output=True)
    command = [sys.executable, ROOT / "docs" / "publish.py", course / "notebooks", folder]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


NOT_OURS = {"genindex.html", "py-modindex.html", "search.html", "report.html"}
"""Pages of Sphinx, and the report, which has its own test."""


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_whole_and_need_nothing_from_elsewhere(browser, site, width):
    folder, address = site
    visit = Visit(browser, address, width)
    pages = [path.relative_to(folder) for path in folder.rglob("*.html")]
    names = sorted(str(path) for path in pages if path.name not in NOT_OURS and path.parts[0] != "_static")
    assert len([name for name in names if name.startswith("notebooks/")]) > 13
    assert {"index.html", "docs/speed.html", "api/spinet.model.html", "notebooks/00_quickstart.html"} <= set(names)
    for name in names:
        assert (folder / name).stat().st_size < 2e6, name
        visit.page.goto(address + name)
        visit.page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise }")
        facts = visit.page.evaluate(
            """() => ({
              wide: document.documentElement.scrollWidth - innerWidth,
              formulas: document.querySelectorAll(".math").length,
              set: document.querySelectorAll(".math mjx-container").length,
              wrong: document.querySelectorAll("[data-mjx-error], [data-mml-node=merror]").length,
              tex: [...document.querySelectorAll("article :is(p, li, td, th, h1, h2, h3)")].flatMap(element => {
                const copy = element.cloneNode(true);
                copy.querySelectorAll("pre, code, script, mjx-container").forEach(part => part.remove());
                return copy.textContent.match(/\\\\[a-zA-Z]+|\\$.+\\$/g) || [];
              }),
              pictures: document.images.length,
              missing: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
              unnamed: [...document.images].filter(i => !i.alt && !i.closest("td")).map(i => i.src),
            })"""
        )
        assert facts["wide"] <= 0, f"{name} is wider than the window"
        assert (facts["formulas"], facts["wrong"], facts["tex"]) == (facts["set"], 0, []), name
        assert facts["pictures"] or name.startswith(("api/", "data/", "docs/", "figures/", "spinet/")), name
        assert (facts["missing"], facts["unnamed"]) == ([], []), name
    visit.page.goto(address + "index.html")
    assert re.search(r"Built on \d{4}-\d\d-\d\d at \d\d:\d\d UTC", visit.page.locator("article").inner_text())
    assert not visit.complaints
    visit.page.close()


def test_an_interactive_figure_is_a_flipbook_on_a_page(browser, site):
    visit = Visit(browser, site[1])
    page = visit.page
    page.goto(f"{site[1]}notebooks/00_quickstart.html")
    picture = page.get_by_alt_text(re.compile("by the rules above"))
    assert picture.is_visible()
    box = picture.bounding_box()
    assert box["width"] > 500
    ratio = page.evaluate("image => image.naturalWidth / image.naturalHeight", picture.element_handle())
    assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.01)
    book = page.locator(".spinet-flipbook").first
    assert book.locator("output").inner_text() == "0.45"
    picture_changes(page, picture, lambda: book.locator("input").press("End"))  # 0.95 leaves fewer things
    picture_changes(page, picture, lambda: book.locator("select").select_option("mask"))
    assert book.locator("output").inner_text() == "0.5"
    assert not visit.complaints
    page.close()


def test_a_slider_moves_on_another_page(browser, site):
    visit = Visit(browser, site[1])
    page = visit.page
    page.goto(f"{site[1]}notebooks/40_auxiliary_tasks.html")
    books = page.locator(".spinet-flipbook")
    assert books.count() > 0
    for book in books.all():
        moved = "End" if book.locator("input").input_value() == "0" else "Home"
        picture_changes(page, book.locator("img"), lambda book=book, key=moved: book.locator("input").press(key))
    assert not visit.complaints
    page.close()


def test_power_is_computed_on_a_page(browser, site):
    visit = Visit(browser, site[1])
    page = visit.page
    page.goto(f"{site[1]}notebooks/54_ablations.html")
    part = page.locator(".spinet-power")
    inputs = part.locator("input")
    for gap, spread, seeds in ((1.2, 0.5, 3), (0.0, 0.5, 10), (3.0, 0.1, 2), (0.5, 1.0, 30)):
        for number, value in enumerate((gap, spread, seeds)):
            inputs.nth(number).fill(f"{value:g}")
        shift = gap / (spread * np.sqrt(2)) * np.sqrt(seeds)
        share = stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, shift)
        shown = int(re.search(rf"With {seeds} seeds (\d+) %", part.locator("p").inner_text()).group(1))
        assert shown == pytest.approx(100 * share, abs=0.6), (gap, spread, seeds)
    assert not visit.complaints
    page.close()


@pytest.mark.parametrize("name", ["33_panoptic_feature", "60_feature_clustering"])
def test_a_click_compares_features_on_a_page(browser, site, name):
    visit = Visit(browser, site[1])
    page = visit.page
    page.goto(f"{site[1]}notebooks/{name}.html")
    part = page.locator(".spinet-similarity")
    image, canvas = part.locator("img"), part.locator("canvas").last
    canvas.wait_for()

    def pixels():
        """The colours of the map, [height, width, 4]."""
        drawn = canvas.evaluate(
            "c => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
        return np.array(drawn[2:]).reshape(*drawn[:2], 4)

    seen = [pixels()]
    box = image.bounding_box()
    for x, y in ((0.3, 0.8), (0.7, 0.1)):
        image.click(position={"x": x * box["width"], "y": y * box["height"]})
        row, column = map(int, re.findall(r"\d+", part.locator("output").inner_text()))
        seen.append(pixels())
        height, width = seen[-1].shape[:2]
        cells = 1 + width / box["width"]  # a click is rounded to a pixel of the page
        assert (row, column) == (pytest.approx(y * height, abs=cells), pytest.approx(x * width, abs=cells))
        assert tuple(seen[-1][row, column]) == (253, 231, 36, 255)  # a vector is most similar to itself
    part.locator("select").select_option("minus distance")
    seen.append(pixels())
    assert all((first != second).any() for first, second in itertools.pairwise(seen))
    assert not visit.complaints
    page.close()


def test_search_finds_a_page(browser, site):
    visit = Visit(browser, site[1])
    visit.page.goto(f"{site[1]}search.html?q=threshold")
    visit.page.locator("#search-results li a", has_text="photo").first.click()
    visit.page.wait_for_url("**/notebooks/00_quickstart.html*")
    assert not visit.complaints
    visit.page.close()


class Places(HTMLParser):
    """The links of a page, and the names of its parts."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.names.add(values.get("id"))
        self.links += [values[key] for key in ("href", "src") if values.get(key)]


def test_links_of_pages_lead_somewhere(site):
    folder, _ = site
    pages = {
        path: Places(path.read_text(encoding="utf-8"))
        for path in folder.rglob("*.html")
        if "_static" not in path.parts  # the theme's templates
    }
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(urljoin(path.as_uri(), link))
            if not address.startswith("file:"):
                continue
            target = Path(unquote(address.removeprefix("file://").partition("?")[0]))
            if not target.is_file() or (anchor and target in pages and unquote(anchor) not in pages[target].names):
                broken.append((path.name, link))
    assert not broken
    assert sum(len(page.links) for page in pages.values()) > 300
