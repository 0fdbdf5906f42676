"""The page of the service in headless Chromium, at 1280 and 390 pixels: log in, browse, start, stop, restart of it.

    pip install -r requirements-benchmarks.txt
    apt-get install chromium                             or: playwright install chromium
    python benchmarks/serve_page.py [--screenshots FOLDER] [--folder saved] [--without-start]

A service is started on a free port. Its folder holds the stored studies and the training of the tests, copied several
times, and a study whose name is HTML is started from the page, unless another folder is named: then nothing is
started, and nothing in it changes. Printed are the milliseconds until each place is drawn, with the page's share
of the processor, which other work on the machine does not stretch, and as faults: messages of
the console, requests to another host, refusals of the page's policy, sideways scrolling, names that became elements,
places that the keyboard cannot reach. The exit code is 1 if there is a fault.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

PROJECT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STORED = ("study_finished", "study_interrupted", "training_interrupted")
COPIES = 5
HOSTILE = "<img src=x onerror=alert(1)>"
CONFIG = "minimal.json"
OVERRIDES = (
    f"name={HOSTILE}",
    "trainer.epochs=2",
    "train_loader.args.samples=16",
    "valid_loader.args.samples=8",
    "search.num_samples=3",
    "search.scheduler=ASHA",
    "search.executor=serial",
    "search.retrain=null",
)
WIDTHS = (1280, 390)
PATIENCE = 300_000  # milliseconds for what a job does
# The browser reports an answer of 400 or more, and none, which a test provokes.
PROVOKED = "Failed to load resource"


def main() -> None:
    """Start the service, look at its page, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="for an image of every place")
    parser.add_argument("--folder", type=Path, help="studies and runs to show; default: stored ones in a new folder")
    parser.add_argument("--without-start", action="store_true", help="start no study")
    arguments = parser.parse_args()
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        sys.exit("playwright is not installed: pip install -r requirements-benchmarks.txt")
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = arguments.folder or stored_studies(Path(temporary))
        with ServedFolder(folder) as service:
            try:
                browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            except Error:
                sys.exit("there is no Chromium on this machine: apt-get install chromium")
            visits = [Visit(browser, service, width, arguments.screenshots) for width in WIDTHS]
            for visit in visits:
                visit.log_in()
                visit.browse()
            kill_and_restart(service, visits)
            if not (arguments.without_start or arguments.folder):
                for visit in visits:
                    visit.start_and_stop()
            for visit in visits:
                visit.log_out()
            browser.close()
    faults = [fault for visit in visits for fault in visit.faults]
    print(f"{len(faults)} faults" + "".join(f"\n  {fault}" for fault in faults))
    sys.exit(bool(faults))


def stored_studies(folder: Path) -> Path:
    """Unpack the stored studies and the training of the tests several times, and return their folder."""
    for name in STORED:
        for copy in range(COPIES):
            place = folder / "saved" / name / f"20260101_00000{copy}"
            with tarfile.open(PROJECT / "tests" / "stored" / f"{name}.tar.gz") as archive:
                archive.extractall(folder / "unpacked", filter="data")
            place.parent.mkdir(parents=True, exist_ok=True)
            (folder / "unpacked" / name).rename(place)
    return folder / "saved"


def kill_and_restart(service: "ServedFolder", visits: Sequence["Visit"]) -> None:
    """Kill the service and start it again: the pages say so, connect again, and their sessions continue."""
    for visit in visits:
        visit.tab.goto(f"{service.address}#/")
        visit.tab.wait_for_selector("[data-part=Studies] td a")
    counts = [len(visit.faults) for visit in visits]
    service.end(signal.SIGKILL)
    for visit in visits:
        visit.expect_connection(False)
    service.restart()
    for visit, count in zip(visits, counts, strict=True):
        visit.expect_connection(True)
        visit.forgive(count)


class ServedFolder:
    """A service of a folder, which can be killed and started again at the same address.

    Args:
        folder: Of its studies and runs.

    Attributes:
        address: That of its page.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self.start(0)
        return self

    def __exit__(self, *_error: object) -> None:
        self.end(signal.SIGTERM)

    @property
    def token(self) -> str:
        """The token of the service."""
        return (self._folder / ".serve" / "token").read_text(encoding="utf-8").strip()

    def start(self, port: int) -> None:
        """Start it, and wait until it says its address."""
        command = [sys.executable, "-m", "search", "serve", "--folder", str(self._folder), "--port", str(port)]
        command += ["--configs", str(PROJECT / "config" / "search")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            name, _, value = line.partition(":")
            if name == "Service":
                self.address = value.strip()
                return
        sys.exit("The service did not start.")

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, and wait for its end."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate()

    def restart(self) -> None:
        """Start it again after its end, at the same address."""
        self.start(int(self.address.strip("/").rpartition(":")[2]))


class Visit:
    """One browser window that looks at the page.

    Args:
        browser: Of Playwright.
        service: Whose page it is.
        width: Of the window in pixels.
        screenshots: Folder for images; None for none.

    Attributes:
        faults: Found so far, a line each.
    """

    def __init__(self, browser: Any, service: ServedFolder, width: int, screenshots: Path | None) -> None:
        self.faults: list[str] = []
        self._address, self._token, self._width, self._screenshots = service.address, service.token, width, screenshots
        scheme = "light" if width > 600 else "dark"
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        self.tab = context.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self._session = context.new_cdp_session(self.tab)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.tab.on("console", lambda message: self._note(message.text))
        self.tab.on("pageerror", lambda error: self._note(str(error)))
        self.tab.on("dialog", self._dismiss)
        self.tab.on("request", lambda request: self._check_host(request.url))

    def log_in(self) -> None:
        """Log in with a wrong token, and with the right one, by the keyboard alone."""
        self._open("", "login", "#token")
        self.tab.keyboard.type("wrong")
        self.tab.keyboard.press("Enter")
        self._expect_error(".login .error")
        self.tab.keyboard.type(self._token)  # over the wrong one, which is selected
        self.tab.keyboard.press("Enter")
        self.tab.wait_for_selector("[data-part=Studies] td a")

    def browse(self) -> None:
        """Look at every kind of place, each opened anew."""
        self._open("#/", "overview", "[data-part=Studies] td a")
        self._check_focus()
        studies = self.tab.evaluate("[...document.querySelectorAll('[data-part=Studies] td a')].map(each => each.hash)")
        for place, study in enumerate(studies[:: max(1, len(studies) - 1)]):
            self._open(study, f"study{place}", "[data-part=Leaderboard] table, [data-part=Leaderboard] .note")
            self.tab.wait_for_function("!document.querySelector('.loading')")
            self._picture(f"study{place}")
            candidates = self.tab.evaluate(
                "[...document.querySelectorAll('[data-part=Leaderboard] td a')].map(each => each.hash)"
            )
            if candidates:
                self._open(candidates[0], f"candidate{place}", "[data-part='Drawn values']")
                self.tab.click("[data-part=log] summary")
                self._picture(f"candidate{place}")
        self.tab.goto(f"{self._address}#/")
        runs = self.tab.evaluate("[...document.querySelectorAll('[data-part=Runs] td a')].map(each => each.hash)")
        if runs:
            self._open(runs[0], "run", "[data-part=Curves]")

    def start_and_stop(self) -> None:
        """Start a study with a faulty value, then with good ones; stop and resume it, and look at its job."""
        tab = self.tab
        self._open("#/", "overview again", "[data-part=Studies] td a")
        tab.keyboard.press("Escape")
        tab.click("#start")
        tab.wait_for_selector("dialog select")
        option = tab.evaluate(
            "name => [...document.querySelectorAll('dialog option')].find(each => each.value.endsWith(name)).value",
            CONFIG,
        )
        tab.select_option("dialog select", option)
        tab.fill("dialog textarea", "trainer.epoch=1")
        tab.click("dialog button[type=submit]")
        self._expect_error("dialog .error")
        self._picture("start refused")
        tab.fill("dialog textarea", "\n".join(OVERRIDES))
        tab.click("dialog button[type=submit]")
        tab.wait_for_selector("dialog", state="detached")
        tab.wait_for_selector(".title .pill.running")
        self._picture("job")
        tab.click("dd a:has-text('study')")
        tab.wait_for_selector("[data-part=Leaderboard] td.number a")
        if tab.text_content("h1") != HOSTILE:
            self.faults.append(f"{self._width}: the name is {tab.text_content('h1')!r} instead of {HOSTILE!r}")
        self._picture("started study")
        self._press("Stop")
        tab.wait_for_selector(".title .pill.unfinished")
        tab.wait_for_selector(".actions button:has-text('Resume')")  # when the job has ended, too
        self._press("Resume", is_asked=False)
        tab.wait_for_selector(".title .pill.running")
        tab.wait_for_selector(".title .pill.done")
        self._picture("ended study")

    def expect_connection(self, is_there: bool) -> None:
        """Wait until the page says that it has no connection, or that it has one again."""
        self.tab.wait_for_function(
            "isThere => (document.getElementById('connection').textContent === '') === isThere", arg=is_there
        )
        if is_there:
            self.tab.wait_for_timeout(1500)  # so that it loads its data again
            self.tab.wait_for_selector("[data-part=Studies] td a")

    def forgive(self, count: int) -> None:
        """Take back the faults after so many that the script provoked."""
        self.faults[count:] = [each for each in self.faults[count:] if PROVOKED not in each]

    def log_out(self) -> None:
        """Log out; nothing is shown any more."""
        self.tab.click("#logout")
        self.tab.wait_for_selector("#token")
        if self.tab.query_selector("table"):
            self.faults.append(f"{self._width}: there is a table after the end of the session")

    def _press(self, name: str, *, is_asked: bool = True) -> None:
        """Press a button, and answer its question by the keyboard."""
        self.tab.click(f".actions button:has-text('{name}')")
        if is_asked:
            self.tab.wait_for_selector("dialog[open]")
            self._picture(f"{name} asked")
            self.tab.keyboard.press("Shift+Tab")  # from "Cancel", which is chosen first
            self.tab.keyboard.press("Enter")
        self.tab.wait_for_selector(".actions .message")

    def _open(self, place: str, name: str, selector: str) -> None:
        """Load the page at a place, and print how long it took."""
        self.tab.goto("about:blank")
        begin = time.perf_counter()
        self.tab.goto(f"{self._address}{place}")
        self.tab.wait_for_selector(selector)
        self.tab.wait_for_selector("html[data-ready]")
        seconds = time.perf_counter() - begin
        metrics = {each["name"]: each["value"] for each in self._session.send("Performance.getMetrics")["metrics"]}
        cpu = 1000 * metrics["TaskDuration"]
        print(f"{self._width}: {name}: {1000 * seconds:.0f} ms, {cpu:.0f} ms of the processor in the page")
        self._picture(name)

    def _picture(self, name: str) -> None:
        """Write an image of the page, and note what is wrong with its look."""
        if self.tab.evaluate("document.documentElement.scrollWidth") > self._width:
            self.faults.append(f"{self._width}: {name} scrolls sideways")
        if self.tab.evaluate("document.querySelectorAll('img[onerror], main script').length"):
            self.faults.append(f"{self._width}: {name}: a name became an element")
        if self._screenshots is not None:
            self._screenshots.mkdir(parents=True, exist_ok=True)
            file = f"{name.replace(' ', '_')}_{self._width}.png"
            self.tab.screenshot(path=self._screenshots / file, full_page=True)

    def _check_focus(self) -> None:
        """Note if the keyboard does not reach the content by the link for it, and the first study."""
        hash_before = self.tab.evaluate("location.hash")
        self.tab.focus(".skip")
        self.tab.keyboard.press("Enter")
        if (
            self.tab.evaluate("document.activeElement.id") != "main"
            or self.tab.evaluate("location.hash") != hash_before
        ):
            self.faults.append(f"{self._width}: the link to the content does not lead there")
        for _ in range(40):
            self.tab.keyboard.press("Tab")
            if self.tab.evaluate("document.activeElement.closest('[data-part=Studies] td') !== null"):
                if self.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "none":
                    self.faults.append(f"{self._width}: the focus is not visible")
                return
        self.faults.append(f"{self._width}: the keyboard does not reach a study")

    def _expect_error(self, selector: str) -> None:
        """Wait for an error on the page, which is also the only message of the console."""
        count = len(self.faults)
        self.tab.wait_for_selector(selector)
        self.tab.wait_for_timeout(200)
        self.forgive(count)

    def _note(self, text: str) -> None:
        self.faults.append(f"{self._width}: on the console: {text}")

    def _dismiss(self, dialog: Any) -> None:
        self._note(f"a dialog of the browser: {dialog.message}")
        dialog.dismiss()

    def _check_host(self, url: str) -> None:
        if not url.startswith((self._address, "data:", "about:")):
            self.faults.append(f"{self._width}: a request to {url}")


if __name__ == "__main__":
    main()
