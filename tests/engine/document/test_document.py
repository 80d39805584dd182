"""The document of a report: what it says is what the report holds, and it stands by itself in a real browser."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import weighbridge
from weighbridge.document import document, page
from weighbridge.errors import BadArgument, TensorNotFound
from weighbridge.report import Report

HOSTILE = (
    "<script>window.hacked=1</script>.layers.0.w",
    "a\"'><img src=x onerror=window.hacked=1>.w",
    "</script><script>window.hacked=1</script>.w",
    "line\nbreak\x1b[31m\u202egnp.w",
    "{{ 7 * 7 }}{% raw %}.w",
)


class Text(HTMLParser):
    """Every text of a document, by the identity of the element of some id that it is in."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def hostile(scanned: Callable[..., Report]) -> Report:
    rng = np.random.default_rng(0)
    return scanned({name: rng.standard_normal((9, 7)).astype(np.float32) for name in HOSTILE})


def test_figures_findings_and_provenance_are_the_reports(scanned, digits):
    report = scanned(digits)
    text = " ".join(Text(document(report)).texts)
    for finding in weighbridge.findings(report):
        assert text.count(finding.summary) == 1
    rows = report.table()
    assert f"{len(rows):,}" in text
    for file in report.manifest.files:
        assert file["header"] in text
        assert file["content"] in text
        assert f"{file['size']:,}" in text
    for package, version in report.manifest.versions.items():
        assert f"{package} {version}" in text or version in text
    assert report.manifest.analyses["scan"].variant in text
    for name in rows["name"]:
        assert name in text


def test_the_table_has_a_row_for_each_tensor(scanned, digits):
    report = scanned(digits)
    markup = document(report)
    for column in ("std", "absmax"):
        for value in report.table()[column].dropna():
            assert f"{value:.4g}".rstrip("0")[:4] in markup


def test_names_out_of_a_checkpoint_are_text(hostile):
    found = Text(document(hostile))
    assert [tag for tag, _ in found.tags].count("script") == 2  # the map's data and our own
    assert not any("onerror" in attributes for _, attributes in found.tags)
    text = " ".join(found.texts)
    for name in HOSTILE[:3]:
        assert name in text
    assert "49" not in re.sub(r"\d{3,}", "", text.partition("7 * 7")[2][:12])
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_nothing_is_fetched_from_anywhere(hostile):
    markup = document(hostile)
    found = Text(markup)
    for _, attributes in found.tags:
        for attribute in ("src", "href", "action", "data"):
            assert not (attributes.get(attribute) or "").startswith(("http", "//", "file"))
    (policy,) = [a["content"] for tag, a in found.tags if tag == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_an_incomplete_report_says_so(scanned, digits):
    report = scanned(digits)
    report.manifest.analyses["scan"].status = "incomplete"
    assert "The scan has not finished" in document(report)


def test_what_was_not_read_is_listed(scanned, tmp_path, digits):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(digits.read_bytes())
    checkpoint = weighbridge.open(path)
    path.write_bytes(digits.read_bytes()[:-1000])
    report = scanned(checkpoint)
    failed = report.table().query("status == 'failed'")
    assert len(failed)
    text = " ".join(Text(document(report)).texts)
    for name, reason in zip(failed["name"], failed["reason"], strict=True):
        assert name in text
        assert reason in text


def test_many_tensors_are_grouped_and_none_is_lost(scanned, monkeypatch):
    rng = np.random.default_rng(1)
    tree = {
        f"layers.{i}.{part}.weight": rng.standard_normal(5).astype(np.float32)
        for i in range(40)
        for part in ("mlp", "attn.q_proj", "norm")
    }
    report = scanned(tree)
    monkeypatch.setattr(page, "USUAL", page.USUAL.__class__(**vars(page.USUAL) | {"rows": 50}))
    markup = document(report)
    assert "120 tensors are more than the 50" in markup
    counts = [
        int(n)
        for n in re.findall(
            r'<th scope="row"><bdi>layers\.\*[^<]*</bdi></th>\s*<td[^>]*>[^<]*</td>\s*<td[^>]*>(\d+)</td>', markup
        )
    ]
    assert sum(counts) == 120
    assert len(counts) == 3


def test_it_stays_within_its_bound(scanned):
    """However long names are and however many."""
    tree = {f"{'x' * 3000}.{i}.w": np.ones(3, np.float32) for i in range(700)}
    markup = document(scanned(tree))
    assert len(markup.encode()) < page.LIMIT


def test_pictures_and_why_one_is_missing(scanned, digits, tmp_path):
    report = scanned(digits)
    weighbridge.export(report, html=tmp_path / "a.html", heatmaps=["dense.kernel"])
    markup = (tmp_path / "a.html").read_text()
    assert markup.count("data:image/png;base64,") == 1
    moved = tmp_path / "model.safetensors"
    moved.write_bytes(digits.read_bytes())
    gone = scanned(moved)
    moved.unlink()
    weighbridge.export(gone, html=tmp_path / "b.html", heatmaps=["dense.kernel"])
    markup = (tmp_path / "b.html").read_text()
    assert "data:image/png" not in markup
    assert "No picture: " in markup
    with pytest.raises(TensorNotFound, match="no tensor 'nothing'"):
        weighbridge.export(report, html=tmp_path / "c.html", heatmaps=["nothing"])
    with pytest.raises(BadArgument, match="needs --html"):
        weighbridge.export(report, csv=tmp_path / "c.csv", heatmaps=["dense.kernel"])
    assert not (tmp_path / "c.html").exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(chromium, scanned, digits, tmp_path, scheme):
    """It sorts, searches, changes the map, follows a cell to its line; nothing is asked for and nothing goes wrong."""
    path = tmp_path / "report.html"
    weighbridge.export(scanned(digits), html=path)
    opened = chromium.new_page(color_scheme=scheme)
    troubles, asked = [], []
    opened.on("console", lambda said: troubles.append(said.text))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(path.as_uri())
    names = lambda: opened.locator("#table tbody tr:visible th").all_inner_texts()  # noqa: E731
    whole = names()
    assert len(whole) == len(weighbridge.open(digits))
    opened.locator("#table thead").get_by_role("button", name="tensor").click()
    assert names() == sorted(whole)
    opened.get_by_label("Search").fill("kernel")
    assert names() == sorted(name for name in whole if "kernel" in name)
    before = opened.locator("#map-ticks").inner_text()
    opened.get_by_label("Colour by").select_option(label="absmax")
    assert opened.locator("#map-ticks").inner_text() != before
    opened.get_by_label("Search").fill("")
    opened.locator("#map-grid a[href]").first.click()
    assert "#t" in opened.url
    ground = opened.evaluate(
        "getComputedStyle(document.documentElement).backgroundColor || getComputedStyle(document.body).backgroundColor"
    )
    body = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ("rgb(255, 255, 255)" in (ground, body)) == (scheme == "light")
    assert troubles == []
    assert {Path(url.partition("#")[0]).name for url in asked if not url.startswith("data:")} == {"report.html"}
    opened.close()
