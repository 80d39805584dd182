"""The page in a real browser, as a person uses it; screenshots are kept where `WEIGHBRIDGE_SCREENSHOTS` says."""

import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighbridge

WEIGHT = "encoder.layer.0.intermediate.dense.weight"
_IMAGE = """() => {
  const walk = (view) => {
    for (const renderer of view.model?.type == "Figure" ? view.model.renderers : [])
      if (renderer.glyph?.type == "Image" && renderer.glyph.color_mapper.palette.length > 3) {
        const model = view.model, data = renderer.data_source.data
        return {x: [model.x_range.start, model.x_range.end], y: [model.y_range.end, model.y_range.start],
                shape: data.image[0].shape ?? [data.image[0].length, data.image[0][0].length],
                first: Array.from(data.image[0].slice ? data.image[0].slice(0, 50) : data.image[0][0]),
                left: data.x[0], bottom: data.y[0], dw: data.dw[0], dh: data.dh[0],
                low: renderer.glyph.color_mapper.low, high: renderer.glyph.color_mapper.high}
      }
    for (const child of view.children?.() ?? view.child_views ?? []) {
      const found = walk(child)
      if (found) return found
    }
    return null
  }
  for (const view of Object.values(Bokeh.index)) { const found = walk(view); if (found) return found }
  return null
}"""
_HOVERED = """() => {
  const texts = []
  const walk = (root) => { for (const node of root.querySelectorAll("*")) {
    if (node.shadowRoot) walk(node.shadowRoot)
    if (node.classList?.contains("bk-tooltip-row-value")) texts.push(node.textContent.trim()) } }
  walk(document)
  return texts
}"""


class Visit:
    """A page opened in a browser, with all that went wrong and all that it asked for."""

    def __init__(self, browser, address, width=1500, height=950):
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.troubles, self.hosts = [], set()
        self.page.on("console", lambda said: self.troubles.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self.asked(request.url))
        self.page.on("websocket", lambda socket: self.asked(socket.url))
        self.page.goto(address)
        self.page.get_by_role("heading", level=1).wait_for(timeout=60_000)

    def asked(self, url):
        if not url.startswith(("data:", "blob:")):
            self.hosts.add(urlsplit(url).hostname)

    def image(self, until=lambda found: found is not None):
        """What the heatmap shows, once it is as it should be and no longer changes."""
        last = None

        def still(found):
            nonlocal last
            settled, last = found == last and until(found), found
            return settled

        return self.wait(lambda: self.page.evaluate(_IMAGE), still, every=0.4)

    def wait(self, look, until, seconds=40.0, every=0.1):
        end = time.monotonic() + seconds
        while not until(found := look()):
            assert time.monotonic() < end, f"still {found!r}"
            self.page.wait_for_timeout(1000 * every)
        return found

    def frame(self):
        """The heatmap's frame on the screen: left, top, width, height."""
        boxes = [box for canvas in self.page.locator("canvas").all() if (box := canvas.bounding_box())]
        largest = max(boxes, key=lambda box: box["width"] * box["height"])
        return largest["x"], largest["y"], largest["width"], largest["height"]

    def hover(self, x, y):
        """Moves there and reads what the tooltip says: rows, columns, value."""
        self.page.mouse.move(x - 3, y)
        self.page.mouse.move(x, y)
        return self.wait(lambda: self.page.evaluate(_HOVERED), lambda texts: len(texts) >= 3)[-3:]

    def keep(self, name):
        if folder := os.environ.get("WEIGHBRIDGE_SCREENSHOTS"):
            self.page.wait_for_timeout(600)
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def close(self):
        self.page.close()
        assert self.troubles == []
        assert self.hosts == {"127.0.0.1"}


@pytest.fixture(scope="module")
def address(serving, minilm_report):
    return serving(minilm_report)


@pytest.fixture
def visit(chromium, address):
    opened = []

    def go(query="", **size):
        opened.append(Visit(chromium, address + query, **size))
        return opened[-1]

    yield go
    for one in opened:
        one.close()


def cell(visited, image, i, j):
    """Where a cell is on the screen, by the frame that the axes span."""
    box = visited.page.evaluate(
        """() => { for (const view of Object.values(Bokeh.index)) { const walk = (v) => {
             if (v.model?.type == "Figure" && v.model.renderers.some(
                 (r) => r.glyph?.type == "Image" && r.glyph.color_mapper.palette.length > 3)) {
               const inner = v.frame.bbox, outer = v.el.getBoundingClientRect()
               return [outer.left + inner.left, outer.top + inner.top, inner.width, inner.height] }
             for (const child of v.children?.() ?? v.child_views ?? []) {
               const found = walk(child); if (found) return found }
             return null }
           const found = walk(view); if (found) return found } return null }"""
    )
    left, top, width, height = box
    (x0, x1), (y0, y1) = image["x"], image["y"]
    x = image["left"] + (j + 0.5) * image["dw"] / image["shape"][1]
    y = image["bottom"] + (i + 0.5) * image["dh"] / image["shape"][0]
    low, high = min(y0, y1), max(y0, y1)
    return left + (x - x0) / (x1 - x0) * width, top + (y - low) / (high - low) * height


def test_a_person_finds_a_weight(visit, minilm, minilm_report, chromium):
    """Filter, choose, look at the whole, zoom to single weights, read one, send the address to a colleague."""
    weights = weighbridge.open(minilm)[WEIGHT].read()
    visited = visit()
    page = visited.page
    page.get_by_text("104 tensors").wait_for()
    visited.keep("model")
    page.get_by_label("search tensors").press_sequentially("layer.0*intermediate")
    page.get_by_text("embeddings.position_ids").wait_for(state="hidden")
    page.wait_for_timeout(1000)  # a row that is drawn anew under the pointer takes no click
    page.get_by_text(WEIGHT).first.click()
    page.get_by_role("heading", level=2).filter(has_text=WEIGHT).wait_for()
    whole = visited.image(lambda found: found is not None and found["shape"][0] > 100)
    visited.keep("tensor")
    i, j = whole["shape"][0] // 3, whole["shape"][1] // 2
    x, y = cell(visited, whole, i, j)
    rows, cols, value = visited.hover(x, y)
    height, width = (round(whole[side] / n) for side, n in zip(("dh", "dw"), whole["shape"], strict=True))
    r, c = i * height, j * width
    block = weights[r : r + height, c : c + width]
    assert [int(n.replace(",", "")) for n in rows.split(" – ")] == ([r, r + height - 1] if height > 1 else [r])
    assert [int(n.replace(",", "")) for n in cols.split(" – ")] == ([c, c + width - 1] if width > 1 else [c])
    assert np.float32(value.split()[0]) == block.ravel()[np.abs(block).argmax()]

    for _ in range(14):
        page.mouse.wheel(0, -250)
        page.wait_for_timeout(60)
    near = visited.image(lambda found: found["shape"][0] < 60 and found["dh"] == found["shape"][0])
    for axis in ("x", "y"):
        assert near[axis][1] - near[axis][0] < (whole[axis][1] - whole[axis][0]) / 4
    assert near["first"] != whole["first"]
    i, j = near["shape"][0] // 2, near["shape"][1] // 2
    rows, cols, value = visited.hover(*cell(visited, near, i, j))
    at = int(rows.replace(",", "")), int(cols.replace(",", ""))
    assert "stored weight" in value
    assert np.float32(value.split()[0]) == weights[at]
    visited.keep("weights")

    visited.wait(lambda: page.url, lambda url: "rows=" in url and "cols=" in url)
    page.wait_for_timeout(500)
    url = page.url
    colleague = Visit(chromium, url)
    seen = colleague.image()
    assert seen["x"] == pytest.approx(near["x"], abs=0.11)
    assert seen["y"] == pytest.approx(near["y"], abs=0.11)
    colleague.close()


def test_reductions_limits_and_their_lock(visit):
    visited = visit(f"?tensor={WEIGHT}")
    absmax = visited.image(lambda found: found is not None and found["shape"][0] > 100)
    assert absmax["low"] == -absmax["high"] < 0
    visited.page.get_by_label("reduction").select_option("mean")
    mean = visited.image(lambda found: found["first"] != absmax["first"])
    assert mean["high"] <= absmax["high"]
    visited.wait(lambda: visited.page.url, lambda url: "reduction=mean" in url)
    visited.page.get_by_label("reduction").select_option("root mean square")
    rms = visited.image(lambda found: found["first"] != mean["first"])
    assert min(rms["first"]) >= 0


def test_a_click_on_a_channel_goes_there(visit, minilm_report):
    """The greatest bar of the rows' norms, clicked, is in the middle of what the heatmap shows."""
    visited = visit(f"?tensor={WEIGHT}&tab=channels")
    page = visited.page
    page.wait_for_timeout(1500)
    visited.keep("channels")
    box = max(
        (b for c in page.locator("canvas").all() if (b := c.bounding_box()) and b["x"] < 1100),
        key=lambda b: b["width"] * b["height"],
    )
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown = visited.image()
    low, high = sorted(shown["y"])
    assert high - low <= 17
    assert 100 < (low + high) / 2 < 1436
    assert shown["x"] == [0, 384]


def test_findings_and_other_tabs(visit):
    visited = visit()
    visited.page.get_by_role("button", name="Findings").click()
    visited.page.get_by_text("initialised").first.wait_for()
    visited.keep("findings")
    visited.page.get_by_role("button", name=re.compile(r"\d+ tensors?$")).first.click()
    visited.page.get_by_role("button", name=re.compile("^only ")).wait_for()
    other = visit(f"?tensor={WEIGHT}&tab=distribution")
    other.page.get_by_text("grids of quantisers").wait_for()
    other.keep("distribution")
    other.page.get_by_role("button", name="figures").click()
    other.page.get_by_text("root of the sum of squares").or_(other.page.get_by_text("kurtosis")).first.wait_for()


def test_a_click_on_the_map_opens_its_tensor(visit):
    visited = visit()
    visited.page.wait_for_timeout(2500)
    boxes = [box for c in visited.page.locator("canvas").all() if (box := c.bounding_box()) and box["width"] > 300]
    top = min(boxes, key=lambda box: box["y"])
    visited.page.mouse.click(top["x"] + 0.4 * top["width"], top["y"] + 0.3 * top["height"])
    visited.page.get_by_role("heading", level=2).filter(has_text="encoder.layer.").wait_for()
    assert "tensor=encoder.layer." in visited.wait(lambda: visited.page.url, lambda url: "tensor=" in url)


def test_names_out_of_a_checkpoint_are_text(chromium, serving, tmp_path):
    """A tensor called like markup is shown as it is called, in the table, the map, its own page and the findings."""
    name = "<img src=x onerror=window.hacked=1>.layers.0.mlp.weight"
    tensors = {name: np.zeros((8, 8), np.float32), f"{name}'\"</script>": np.full((9, 7), np.nan, np.float32)}
    save_file(tensors, tmp_path / "hostile.safetensors")
    visited = Visit(chromium, serving(tmp_path / "hostile.safetensors"))
    page = visited.page
    page.get_by_text(name).first.click()
    page.get_by_role("heading", level=2).filter(has_text=name).wait_for()
    for tab in ("distribution", "channels", "figures"):
        page.get_by_role("button", name=tab).click()
        page.wait_for_timeout(700)
    page.get_by_role("cell", name="8 × 8", exact=True).first.wait_for(timeout=90_000)
    page.get_by_role("button", name="Findings").click()
    page.get_by_text("NaN").first.wait_for()
    assert page.get_by_role("alert").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    visited.close()


def test_a_report_with_spectra_has_their_tab(chromium, serving, minilm, tmp_path):
    folder = tmp_path / "report"
    only = ["*layer.0.intermediate*", "*layer.1.intermediate*"]
    weighbridge.scan(minilm, report=folder, include=only, device="cpu")
    weighbridge.spectra(minilm, report=folder, include=only)
    visited = Visit(chromium, f"{serving(folder)}?tensor={WEIGHT}&tab=spectrum")
    visited.page.get_by_role("button", name="spectrum").wait_for()
    drawn = """() => { let n = 0; for (const doc of Bokeh.documents) for (const model of doc._all_models.values())
      if (model.type == "Figure" && /stable rank|alpha|noise of sigma/.test(model.title?.text ?? "")) n++; return n }"""
    visited.wait(lambda: visited.page.evaluate(drawn), lambda count: count == 3)
    wide = """() => { const found = []; const walk = view => { (view.child_views ?? []).forEach(walk)
      if (/^vector/.test(view.model.title?.text ?? "")) found.push(view.frame.bbox.width) }
      for (const root of Bokeh.index.roots) walk(root); return found }"""
    visited.wait(lambda: visited.page.evaluate(wide), lambda widths: len(widths) >= 2 and min(widths) > 200)
    visited.keep("spectrum")
    visited.close()


def test_how_neurons_relate(serving, minilm, chromium, tmp_path):
    """The tab of a tensor with its heads, the neighbours of any neuron, and the grid of layers on the model's page."""
    folder = tmp_path / "related"
    chosen = {"include": ["*layer.0.*weight", "*position*"], "report": folder}
    weighbridge.scan(minilm, device="cpu", **chosen)
    weighbridge.correlate(minilm, **chosen)
    address = serving(folder)
    query = "encoder.layer.0.attention.self.query.weight"
    visited = Visit(chromium, f"{address}?tensor={query}&tab=neurons")
    visited.page.get_by_text("most like 0").wait_for()
    visited.page.get_by_label("neuron").fill("5")
    visited.page.get_by_label("neuron").press("Enter")
    visited.page.get_by_text("most like 5").wait_for()
    visited.wait(lambda: visited.page.locator("canvas").count(), lambda count: count >= 3)
    visited.keep("neurons")
    visited.page.get_by_role("button", name="Model").click()
    visited.page.get_by_role("heading", level=2).wait_for(state="detached")
    visited.wait(lambda: visited.page.locator("canvas").count(), lambda count: count >= 3)
    visited.keep("relations")


WORDS = "embeddings.word_embeddings.weight"


def test_a_map_of_words_tells_of_those_that_are_selected(chromium, serving, minilm, tmp_path):
    """Choose a colour, drag a box: the words within, with their neighbours, and their weights."""
    folder = tmp_path / "report"
    weighbridge.scan(minilm, report=folder, include=[WORDS], device="cpu")
    some = slice(1000, 7000)  # more than are drawn singly
    weighbridge.project(minilm, WORDS, rows=some, clusters="kmeans", cluster_count=6, report=folder, device="cpu")
    visited = Visit(chromium, f"{serving(folder)}?tensor={WORDS}&tab=projection")
    page = visited.page
    page.get_by_text("select points with the box or the lasso").wait_for(timeout=40_000)
    page.get_by_label("colour").select_option("cluster")
    page.wait_for_timeout(4000)
    visited.keep("projection")
    page.locator(".bk-tool-icon-box-select").first.click()

    def selected():
        """Drags a box; again where the map was still being drawn."""
        left, top, width, height = visited.frame()
        page.mouse.move(left + 0.42 * width, top + 0.42 * height)
        page.mouse.down()
        page.mouse.move(left + 0.47 * width, top + 0.47 * height, steps=5)
        page.mouse.up()
        page.wait_for_timeout(3000)
        return page.get_by_text("rows selected").count()

    visited.wait(selected, bool)
    rows = page.locator("table.figures tr")
    assert rows.count() > 3
    cells = rows.nth(1).locator("td")
    assert re.search(r" · \d{4}$", cells.first.inner_text())
    assert len(re.findall(r" · \d{4} \(0\.\d\d\)", cells.last.inner_text())) == 5  # its neighbours and how near
    page.get_by_role("button", name="see them in the heatmap").click()
    drawn = """() => { for (const doc of Bokeh.documents) for (const model of doc._all_models.values())
      if (model.type == "Figure" && / selected/.test(model.title?.text ?? "")) return true; return false }"""
    visited.wait(lambda: page.evaluate(drawn), bool)
    visited.keep("projection-selected")
    visited.close()


def test_a_report_without_an_analysis_has_no_tab_of_it(visit):
    visited = visit(f"?tensor={WEIGHT}&tab=spectrum")
    visited.image()
    assert visited.page.get_by_role("button", name="spectrum").count() == 0


def test_similarities(visit, minilm):
    """Of rows, then of columns put in order: hover names the pair as it is stored; the address says what is shown."""
    name = "encoder.layer.0.attention.self.query.weight"
    x = weighbridge.open(minilm)[name].read().astype(np.float64)
    visited = visit(f"?tensor={name}")
    page = visited.page
    before = visited.image()
    page.get_by_role("button", name="similarity").click()
    rows = visited.image(lambda found: found is not None and found["first"] != before["first"])
    assert rows["first"][0] > 0.2
    visited.wait(lambda: page.url, lambda url: "tab=similarity" in url)
    page.get_by_label("similarities of").select_option("columns")
    stored = visited.image(lambda found: found is not None and found["first"] != rows["first"])
    page.get_by_label("order").select_option("similar ones together")
    image = visited.image(lambda found: found is not None and found["first"] != stored["first"])
    visited.keep("similarity")
    assert image["shape"] == [384, 384]
    first, second, value = visited.hover(*cell(visited, image, 100, 200))
    units = x / np.linalg.norm(x, axis=0)
    assert "cosine" in value
    assert float(value.split()[0].replace("−", "-")) == pytest.approx(
        units[:, int(first)] @ units[:, int(second)], abs=4e-6
    )
    visited.wait(lambda: page.url, lambda url: "side=cols" in url and "order=seriated" in url)
    page.wait_for_timeout(500)
    again = visit(page.url[page.url.index("?") :])
    assert again.image()["first"] == image["first"]


def test_a_tensor_without_rows_has_no_similarities(visit):
    visited = visit("?tensor=encoder.layer.0.attention.self.query.bias&tab=similarity")
    visited.page.get_by_text("has 1 axes; similarities are of the rows of two or more").wait_for()


def test_dark(visit):
    visited = visit(f"?tensor={WEIGHT}&theme=dark")
    visited.image()
    visited.keep("dark")
    assert visited.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    visited.page.get_by_role("button", name="Light").click()
    white = "document.body && getComputedStyle(document.body).backgroundColor == 'rgb(255, 255, 255)'"
    visited.page.wait_for_function(white, timeout=40_000)  # outlives that the page is loaded anew


def test_two_tabs_do_not_disturb_each_other(visit):
    one, two = visit(f"?tensor={WEIGHT}&rows=0:100&cols=0:100"), visit(f"?tensor={WEIGHT}&rows=500:600&cols=50:150")
    first, second = one.image(), two.image()
    two.page.get_by_label("reduction").select_option("share of zeros")
    two.image(lambda found: found["first"] != second["first"])
    one.page.wait_for_timeout(500)
    assert one.image()["first"] == first["first"]
    assert one.image()["y"] == pytest.approx([0, 100])
    assert two.image()["y"] == pytest.approx([500, 600])


def test_it_is_reached_by_keyboard(visit):
    """Tab to the search, type, Enter opens the first match."""
    visited = visit()
    search = visited.page.get_by_label("search tensors")
    for _ in range(12):
        visited.page.keyboard.press("Tab")
        if search.evaluate("node => node.getRootNode().activeElement === node"):
            break
    visited.page.keyboard.type("layer.3*query.weight")
    visited.page.keyboard.press("Enter")
    visited.page.get_by_role("heading", level=2).filter(has_text="layer.3").wait_for()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?tensor=no.such.tensor", "no tensor 'no.such.tensor' in this report"),
        ("?tensor=../../etc/passwd", "no tensor '../../etc/passwd'"),
        ("?tensor=<img src=x onerror=alert(1)>", "no tensor '<img src=x onerror=alert(1)>'"),
        ("?rows=9:1", "expected low:high, the first the smaller"),
    ],
    ids=["unknown", "path", "markup", "range"],
)
def test_nonsense_in_the_address_is_one_line_in_the_page(visit, query, said):
    visited = visit(query)
    alert = visited.page.get_by_role("alert")
    alert.wait_for()
    assert said in alert.inner_text()
    assert "Traceback" not in visited.page.content()
