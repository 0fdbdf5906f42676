"""A search's report in headless Chromium: time to open, console, network; and what writing a large one costs.

    pip install -r requirements-benchmarks.txt
    apt-get install chromium                             or: playwright install chromium
    python benchmarks/search_report.py [--screenshots FOLDER]

A study of 300 candidates is written and opened, from the start of the navigation until every figure is drawn; one of
10,000 is written. The studies are the generated ones of the tests.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

from search.report import write_report
from tests.support.study_samples import sample_study

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPENINGS = 5
MOST_MILLISECONDS = 120_000
SECTIONS = (
    "winner",
    "retrained",
    "leaderboard",
    "curves",
    "rungs",
    "front",
    "parallel",
    "importance",
    "failures",
    "json",
)


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
    parser.add_argument("--screenshots", type=Path, help="folder for images of every section, light and dark")
    folder = parser.parse_args().screenshots
    with tempfile.TemporaryDirectory() as temporary:
        large, small = Path(temporary) / "large.html", Path(temporary) / "small.html"
        print(measure_writing(10_000, large))
        two = sample_study(300, objectives=("max val_miou", "min params"), folder=temporary)
        write_report(two, small)
        print(f"300 candidates: {small.stat().st_size / 1e6:.1f} MB")
        print(look(small, folder))
        print(look(large, None))


def measure_writing(num_candidates: int, path: Path) -> str:
    """A line about the time and memory of writing a report."""
    study = sample_study(num_candidates)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, began_cpu = time.perf_counter(), time.process_time()
    write_report(study, path)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"{num_candidates:,} candidates: written in {seconds:.2f} s ({cpu_seconds:.2f} s of processor), "
        f"{path.stat().st_size / 1e6:.1f} MB, at most {after / 1024:.0f} MB of memory ({before / 1024:.0f} before)"
    )


def look(page: Path, folder: Path | None) -> str:
    """A line about opening a page several times; images of it where a folder is given."""
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
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for scheme in ("light", "dark"):
                take_images(browser, page, folder, scheme)
        browser.close()
    times = sorted(each.seconds for each in openings)
    cpu = sorted(each.cpu_seconds for each in openings)[len(openings) // 2]
    requests = sum(len(each.requests) for each in openings)
    messages = [message for each in openings for message in each.messages]
    return (
        f"{page.stem}: drawn in {times[len(times) // 2]:.2f} s (median of {OPENINGS}, worst {times[-1]:.2f} s), "
        f"{cpu:.2f} s of processor, "
        f"{requests} requests beside the page, {len(messages)} messages on the console {messages[:3] or ''}"
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


def take_images(browser: Any, page: Path, folder: Path, scheme: str) -> None:
    """An image of the top and of each section."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    tab.set_default_timeout(MOST_MILLISECONDS)
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]")
    tab.screenshot(path=folder / f"{scheme}_top.png")
    for name in SECTIONS:
        if tab.locator(f"#{name}").count():
            tab.locator(f"#{name}").screenshot(path=folder / f"{scheme}_{name}.png")
    tab.close()


if __name__ == "__main__":
    main()
