"""The contact sheet and the report's page, looked at by a browser as a person without a mouse would."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_report import STAGES, Reader, configuration, make_run, write_page
from wsss_core.config import step_json
from wsss_core.execution import Execution
from wsss_core.report.sheet import SheetPage, Shown, render_sheet
from wsss_core.steps import sheet as sheet_step

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

ACTIONS = """
<pre id="seen"></pre>
<script>
window.errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("load", () => {
  const names = () => [...document.querySelectorAll("#photos li")].map(item => item.dataset.id);
  const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const seen = {start: names(), focusable: document.querySelectorAll("#photos button, [data-sort]").length};
  const by = key => document.querySelector(`[data-sort=${key}]`);
  by("coverage").click();
  seen.coverage = names();
  by("coverage").click();
  seen.descending = names();
  seen.pressed = by("coverage").getAttribute("aria-pressed");
  const dialog = document.querySelector("dialog"), button = document.querySelector("#photos button");
  button.focus();
  button.click();
  seen.open = dialog.open && dialog.querySelector(".id").textContent;
  press(dialog, "ArrowRight");
  seen.next = dialog.querySelector(".id").textContent;
  dialog.close();
  seen.closed = !dialog.open;
  seen.wide = document.documentElement.scrollWidth - innerWidth;
  seen.errors = errors;
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>
"""
"""What a person does on the sheet, and what is seen after it."""

WIDTH = """
<pre id="seen"></pre>
<script>
addEventListener("load", () => {
  const wider = region => region.scrollWidth > region.clientWidth + 1;
  const regions = [...document.querySelectorAll(".scroll")].filter(wider);
  document.getElementById("seen").textContent = JSON.stringify({
    wide: document.documentElement.scrollWidth - innerWidth,
    unreachable: regions.filter(region => region.tabIndex < 0).length,
  });
});
</script>
"""


def looked_at(page: Path, script: str, width: int) -> dict:
    """What a script, added to a page, saw in a browser of some width."""
    if BROWSER is None:
        pytest.skip("there is no Chromium to look at the page with")
    acted = page.with_name(f"acted-{page.name}")
    acted.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'browser'}"]
    command += [f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom", acted.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found and found[1], done.stderr[-2000:]
    return json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.fixture
def made(tmp_path) -> Path:
    """Folder of a run with its sheet."""
    stages = STAGES | {"rib@steps=5": replace(STAGES["cam"], name="rib@steps=5")}
    report = make_run(tmp_path, stages, masks=False)
    make_sheet(tmp_path, stages)
    write_page(tmp_path, report)
    return tmp_path


def make_sheet(run: Path, stages: dict, photos: int = 2000) -> None:
    config = run / "config/run/sheet.json"
    config.write_text(step_json(configuration(stages, report={"images": 3, "sheet": photos}), "run", "sheet"))
    sheet_step.run(config=config, run=run, sheet=run / "sheet", execution=Execution("cpu"))


def test_every_photo_stands_on_it_with_its_numbers(made):
    page = (made / "sheet/index.html").read_text()
    Reader(page)
    items = re.findall(r'<li data-id="([^"]*)" data-class="([^"]*)" data-coverage="([\d.]+)" data-conf', page)
    assert [item[0] for item in items] == ["000", "001", "002", "004", "005", "006", "a/3.jpg"]
    assert "photo, rib@steps=5, rib-crf" in page
    covered = {name: float(coverage) for name, _, coverage in items}
    assert covered["000"] == 0 and covered["001"] > 0
    assert 'href="sheet/index.html"' in (made / "report.html").read_text()


def test_pages_are_as_long_as_they_may_be_and_fewer_photos_are_said(made, monkeypatch):
    monkeypatch.setattr(sheet_step, "A_PAGE", 2)
    make_sheet(made, STAGES | {"rib@steps=5": replace(STAGES["cam"], name="rib@steps=5")}, photos=5)
    pages = sorted(path.name for path in (made / "sheet").glob("*.html"))
    assert pages == ["2.html", "3.html", "index.html"]
    page = (made / "sheet/2.html").read_text()
    assert "5 of 7 photos, chosen by a hash" in page and "Page 2 of 3" in page and 'href="3.html"' in page


def test_names_of_photos_are_text():
    shown = Shown('<b>"&', ["<cow>"], 0.5, 0.5, "data:,")
    page = render_sheet(SheetPage("run", 1, 1, ("photo",), [shown], 1, 1))
    assert "<b>" not in page and "<cow>" not in page and "&lt;cow&gt;" in page


@pytest.mark.parametrize("width", [400, 1400])
def test_sorting_and_enlarging_work_by_keyboard(made, width):
    seen = looked_at(made / "sheet/index.html", ACTIONS, width)
    assert seen["errors"] == [] and seen["wide"] <= 0
    assert seen["focusable"] == len(seen["start"]) + 4 and seen["pressed"] == "true"
    assert seen["coverage"] != seen["descending"] and sorted(seen["coverage"]) == sorted(seen["start"])
    assert seen["descending"][0] == seen["coverage"][-1]
    assert seen["open"].startswith(seen["descending"][0]) and seen["next"].startswith(seen["descending"][1])
    assert seen["closed"]


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_is_not_wider_than_its_window_and_what_scrolls_takes_the_focus(made, width):
    seen = looked_at(made / "report.html", WIDTH, width)
    assert seen["wide"] <= 0 and seen["unreachable"] == 0
