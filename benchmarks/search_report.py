"""A search's report in headless Chromium: time to open, console, network; and what writing a large one costs.

    pip install -r requirements-benchmarks.txt
    apt-get install chromium                             or: playwright install chromium
    python benchmarks/search_report.py [--screenshots FOLDER]

Studies of 300 and of 10,000 candidates are written and opened, from the start of the navigation until every figure is
drawn, and one of 300 with 80 searched values, three objectives and images. Each is looked at in two widths and in light
and dark: labels of a figure that overlap, or a page that scrolls sideways, are counted. The studies are the generated
ones of the tests.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

from search.comparison.studies import runs_of_studies
from search.report import write_comparison, write_report
from search.results.record import StudyRecord
from tests.support.study_samples import sample_study

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPENINGS = 5
MOST_MILLISECONDS = 120_000
WIDTHS = (1280, 390)
# Pairs of texts of a figure that lie on each other; those of parallel coordinates are outlined.
OVERLAPS = """() => [...document.querySelectorAll('.figure svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(each => [each.textContent, each.getBoundingClientRect()]);
  return texts.flatMap(([one, a], place) => texts.slice(place + 1)
    .filter(([_, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
    .map(([two]) => `${svg.parentElement.dataset.figure}: ${one} / ${two}`));
})"""


class Opening(NamedTuple):
    """What a browser saw.

    Attributes:
        seconds: Until every figure was drawn.
        cpu_seconds: Of the page's main thread, which other load on the machine does not stretch.
        requests: Addresses asked for beside the page itself.
        messages: Of the console, and errors.
    """

    seconds: float
    cpu_seconds: float
    requests: list[str]
    messages: list[str]


def main() -> None:
    """Write, open, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screenshots", type=Path, help="folder for images of every page, light and dark")
    folder = parser.parse_args().screenshots
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        studies = {
            "300": sample_study(300, objectives=("max val_miou", "min params")),
            "300_full": full_study(place / "study"),
            "10000": sample_study(10_000),
        }
        write_report(sample_study(5), place / "first.html")  # loads the templates
        for name, study in studies.items():
            print(measure_writing(study, place / f"{name}.html"))
        compared = [studies["300"], sample_study(100, seed=1), sample_study(60, seed=2)]
        write_comparison(runs_of_studies(compared), compared, place / "compare.html")
        for name in (*studies, "compare"):
            print(look(place / f"{name}.html", folder))


def full_study(folder: Path) -> StudyRecord:
    """Make a study of 300 candidates with 87 searched values, three objectives and a dozen images."""
    (folder / "best" / "pictures").mkdir(parents=True)
    study: StudyRecord = sample_study(300, objectives=("max val_miou", "min params", "min val_loss"), folder=folder)
    chance = np.random.default_rng(0)
    for candidate in study.candidates:
        operations = chance.choice(["skip", "sep_conv_3x3", "dil_conv_5x5", "avg_pool_3x3"], 60).tolist()
        candidate.drawn += [(f"cells.{place}.operation", name) for place, name in enumerate(operations)]
        candidate.drawn += [
            (f"cells.{place}.weight", weight) for place, weight in enumerate(chance.random(20).tolist())
        ]
    for place in range(12):
        noise = cv2.resize(chance.integers(0, 255, (90, 160, 3), dtype=np.uint8), (1920, 1080))
        cv2.imwrite(str(folder / "best" / "pictures" / f"{place}.png"), noise)
    return study


def measure_writing(study: StudyRecord, path: Path) -> str:
    """Return a line about the time and memory of writing a report."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, began_cpu = time.perf_counter(), time.process_time()
    write_report(study, path)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"{path.stem}: written in {seconds:.2f} s ({cpu_seconds:.2f} s of processor), "
        f"{path.stat().st_size / 1e6:.2f} MB, at most {after / 1024:.0f} MB of memory ({before / 1024:.0f} before)"
    )


def look(page: Path, folder: Path | None) -> str:
    """Return a line about opening a page several times, and about its look."""
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        return "Not opened: the package playwright is not installed (requirements-benchmarks.txt)."
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        except Error:
            return "Not opened: there is no Chromium on this machine (apt-get install chromium)."
        openings = [open_once(browser, page) for _ in range(OPENINGS)]
        faults = [
            fault
            for scheme in ("light", "dark")
            for width in WIDTHS
            for fault in faults_of(browser, page, folder, scheme, width)
        ]
        browser.close()
    times = sorted(each.seconds for each in openings)
    cpu = sorted(each.cpu_seconds for each in openings)[len(openings) // 2]
    requests = sum(len(each.requests) for each in openings)
    messages = [message for each in openings for message in each.messages]
    return (
        f"{page.stem}: drawn in {times[len(times) // 2]:.2f} s (median of {OPENINGS}, worst {times[-1]:.2f} s), "
        f"{cpu:.2f} s of processor, "
        f"{requests} requests beside the page, {len(messages)} messages on the console {messages[:3] or ''}, "
        f"{len(faults)} faults of {2 * len(WIDTHS)} views {faults[:5] or ''}"
    )


def open_once(browser: Any, page: Path) -> Opening:
    """Open a page in a fresh context and wait until it says that it is drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(MOST_MILLISECONDS)
    tab = context.new_page()
    requests: list[str] = []
    messages: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    session = context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    began = time.perf_counter()
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]")
    seconds = time.perf_counter() - began
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    others = [url for url in requests if not url.startswith("data:") and url != page.as_uri()]
    return Opening(seconds, metrics["TaskDuration"], others, messages)


def faults_of(browser: Any, page: Path, folder: Path | None, scheme: str, width: int) -> list[str]:
    """Return what is wrong with the look of a page; write an image of it into the folder, if there is one."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.set_default_timeout(MOST_MILLISECONDS)
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]")
    faults: list[str] = tab.evaluate(OVERLAPS)
    if tab.evaluate("document.documentElement.scrollWidth") > width:
        faults.append(f"{width}: scrolls sideways")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=folder / f"{page.stem}_{scheme}_{width}.png", full_page=True)
    tab.close()
    return faults


if __name__ == "__main__":
    main()
