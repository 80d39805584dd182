"""The tab of circuits in a real browser: a unit is typed, others are clicked, on both sides."""

import os
from pathlib import Path

import pytest

import weighbridge

_PLACES = """(wanted) => {
  const walk = (view) => {
    for (const renderer of view.model?.type == "Figure" ? view.model.renderers : [])
      if (renderer.data_source?.data.layer) {
        const data = renderer.data_source.data, frame = view.frame, box = view.el.getBoundingClientRect()
        return Array.from(data.layer, (layer, i) => [layer, data.number[i],
          box.left + frame.x_scale.compute(data.x[i]), box.top + frame.y_scale.compute(data.y[i])])
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


@pytest.fixture(scope="module")
def page(chromium, serving, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "report"
    weighbridge.scan(digits, report=folder, device="cpu")
    page = chromium.new_page(viewport={"width": 1700, "height": 1000})
    troubles = []
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"{serving(folder)}?tensor=head.kernel&tab=circuit&unit=3")
    yield page
    assert troubles == []
    page.close()


def units(page, until, seconds=30):
    """Where the drawn units are on the screen, once they are as they should be."""
    for _ in range(10 * seconds):
        found = page.evaluate(_PLACES) or []
        places = {(layer, int(number)): (x, y) for layer, number, x, y in found}
        if until(places):
            if folder := os.environ.get("WEIGHBRIDGE_SCREENSHOTS"):
                page.wait_for_timeout(500)
                page.screenshot(path=Path(folder) / f"circuit-{len(places)}.png")
            return places
        page.wait_for_timeout(100)
    raise AssertionError(f"still {sorted(places)}")


def of(edges):
    return {tuple(unit) for edge in edges for unit in (edge.source, edge.target)}


def test_a_person_walks_from_a_unit(page, digits):
    """Its strongest inputs, the inputs of one of them by a click and away by another, then who reads that one."""
    own = weighbridge.circuits(digits, "head.kernel:3", depth=1).edges
    places = units(page, lambda places: places.keys() == of(own))
    page.get_by_role("heading", level=3, name="head.kernel, unit 3").wait_for()
    strongest = own[0].source
    more = weighbridge.circuits(digits, f"dense.kernel:{strongest.number}", depth=1).edges
    page.mouse.click(*places[tuple(strongest)])
    places = units(page, lambda places: places.keys() == of([*own, *more]))
    page.get_by_role("heading", level=3, name=f"dense.kernel, unit {strongest.number}").wait_for()
    assert f"{abs(more[0].weight):.4g}" in page.get_by_role("table").first.inner_text()
    page.mouse.click(*places[tuple(strongest)])
    places = units(page, lambda places: places.keys() == of(own))
    readers = weighbridge.circuits(digits, f"dense.kernel:{strongest.number}", depth=1, direction="downstream").edges
    page.get_by_role("button", name="what reads it").click()
    page.wait_for_timeout(500)
    page.mouse.click(*places[tuple(strongest)])
    units(page, lambda places: places.keys() == of([*own, *readers]))


def test_a_unit_is_typed_and_filters_are_its_icons(page):
    field = page.get_by_label("unit", exact=True)
    field.fill("conv2.kernel:5")
    field.press("Enter")
    places = units(page, lambda places: ("conv2.kernel", 5) in places)
    assert {layer for layer, _ in places} == {"conv1.kernel", "conv2.kernel"}
    assert "unit=conv2.kernel" in page.url
    field.fill("conv9.kernel:5")
    field.press("Enter")
    page.get_by_text("no tensor 'conv9.kernel'").wait_for()
    field.fill("10")
    field.press("Enter")
    page.get_by_text("no unit 10; expected 0 to 9").wait_for()
