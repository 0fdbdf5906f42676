"""The page of the service: complete, self-contained, and text stays text."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from search.serve.page import PAGE_HEADERS, page_file
from tests.support.served import client_of
from tests.support.served_job import write_configs

IMPORT = re.compile(r'import \{([^}]*)\} from "\./([\w.]+)";')
# Ways to make HTML or code of a text, or to load from a computed place.
DANGEROUS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|createContextualFragment|setHTML"
    r"|\beval\b|new Function|javascript:|setTimeout\([\"']|import\("
)


DOM = Path(__file__).parent / "support/page_dom.js"
LOG = """
import assert from "node:assert";
import { answers, body, settle, streams } from "./page_dom.js";
import { logPart } from "./log.js";

const path = "/api/runs/a", content = { text: "one\\n", offset: 0, next_offset: 4 };
let isRunning = true;
const made = logPart("Log", path, { isOpen: true, mayGrow: () => isRunning });
const [details] = made.section.all("details"), [lines] = made.section.all("pre");
body.append(made.section);
"""
VIEW_IS_CLOSED = """
let send;
answers.set(`${path}/log`, new Promise(resolve => { send = resolve; }));
details.fire("toggle");
made.close();
send({ content });
await settle();
assert.deepEqual([streams.length, lines.textContent], [0, ""]);
"""
QUICK_TOGGLES = """
answers.set(`${path}/log`, { content });
details.fire("toggle");
details.open = false;
details.fire("toggle");
details.open = true;
await details.fire("toggle");
await settle();
assert.deepEqual(streams.map(each => [each.path, each.isClosed]), [[`${path}/log/stream?offset=4`, false]]);
streams[0].say("log", { text: "two\\n", next_offset: 8 });
assert.equal(lines.textContent, "one\\ntwo\\n");
"""
RUN_IS_RESUMED = """
answers.set(`${path}/log`, { content });
await details.fire("toggle");
streams[0].say("end");
isRunning = false;
await made.update();
assert.deepEqual(streams.map(each => each.isClosed), [true]);
isRunning = true;
await made.update();
await made.update();
assert.deepEqual(streams.map(each => each.isClosed), [true, false]);
assert.equal(lines.textContent, "one\\n");
made.section.parent = null;  // the view is closed, and an event of its section comes late
made.close();
await details.fire("toggle");
assert.equal(streams.length, 2);
"""
TOKEN_IS_CHANGED = """
import assert from "node:assert";
import { answers, settle, streams } from "./page_dom.js";

answers.set("/api/overview", { content: { service: {}, studies: [], runs: [], jobs: [] } });
await import("./main.js");
await settle();
assert.equal(streams[0].path, "/api/events");
assert.notEqual(document.title, "Espalier: log in");
answers.set("/api/overview", { status: 503, content: null });
streams[0].onerror();
await settle();
assert.notEqual(document.title, "Espalier: log in");
answers.set("/api/overview", { status: 401, content: null });
streams[0].onerror();
await settle();
assert.equal(document.title, "Espalier: log in");
process.exit();
"""
FAILURES = """
import assert from "node:assert";
import { answers, settle } from "./page_dom.js";
import { studyView } from "./study.js";

const failures = [{ status: "failed", reason: "no memory", count: 35, candidates: [1, 2] }];
answers.set("/api/studies/a", { content: { study: { id: "a" }, facts: { failures } } });
const failed = studyView("a").parts.find(each => each.section.attributes["aria-label"] === "Failures");
await failed.update();
assert.deepEqual(failed.section.all("td").map(each => each.textContent), ["failed", "35", "1, 2", "no memory"]);
"""


def text_of(name):
    content, _, _ = page_file(name)
    return content.decode()


def scripts():
    """The scripts of the page: those that it names, and those that these import."""
    found, waiting = {}, ["charts.js", "main.js"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = text_of(name)
            waiting += [module for _, module in IMPORT.findall(found[name])]
    return found


class References(HTMLParser):
    """Collects where a page points to, and its inline code."""

    def __init__(self):
        super().__init__()
        self.files, self.inline = [], []

    def handle_starttag(self, tag, attrs):
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.files += [value for name, value in attrs if name in ("src", "href")]
        if tag == "style" or (tag == "script" and "src" not in dict(attrs)):
            self.inline.append(tag)


def test_everything_that_the_page_names_is_served_by_it():
    reader = References()
    reader.feed(text_of(""))
    local = [each.removeprefix("/static/") for each in reader.files if each.startswith("/static/")]
    # The modules are named, too, so that they are loaded at once instead of one after the other.
    assert sorted(local) == sorted([*scripts(), "page.css", "style.css"])
    assert set(reader.files) - {f"/static/{each}" for each in local} == {"data:,", "#main", "#/"}
    assert all(page_file(name) for name in local)
    assert reader.inline == []  # the policy would refuse it


def test_the_policy_allows_only_files_of_the_service():
    content, media_type, headers = page_file("")
    assert content.startswith(b"<!DOCTYPE html>")
    assert media_type == "text/html; charset=utf-8"
    assert headers == dict(PAGE_HEADERS)
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[each] for each in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "name", ["../page.py", "page.py", "/etc/passwd", "static/main.js", "..", ".", "main.js/", "MAIN.JS"]
)
def test_other_names_are_no_files_of_the_page(name):
    assert page_file(name) is None


def test_media_types_are_those_that_nosniff_needs():
    assert page_file("main.js")[1] == "text/javascript; charset=utf-8"
    assert page_file("style.css")[1] == "text/css; charset=utf-8"
    assert PAGE_HEADERS["X-Content-Type-Options"] == "nosniff"


def test_imported_names_are_exported():
    found = scripts()
    assert {"main.js", "study.js", "run.js", "overview.js", "dialogs.js", "log.js", "figures.js"} <= set(found)
    for name, text in found.items():
        for names, module in IMPORT.findall(text):
            exported = re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", found[module], re.MULTILINE)
            missing = {each.strip() for each in names.split(",")} - set(exported)
            assert not missing, f"{name} imports {missing} from {module}"


def test_names_of_studies_never_become_html():
    """Every text reaches the page as a text node: no script has a way to make HTML or code of it."""
    for name, text in scripts().items():
        assert DANGEROUS.findall(text) == [], name
    # Attributes that run or load what they hold are set from constants and from paths of the API only.
    for name, text in scripts().items():
        for value in re.findall(r"\b(?:href|src): ((?:\$\{[^}]*\}|[^,}])*)", text):
            assert value.strip() in ("addressOf(...places)", "source", "`${path}/report`", "`${path}/tensorboard/`"), (
                f"{name}: {value}"
            )


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize(
    "actions",
    [LOG + VIEW_IS_CLOSED, LOG + QUICK_TOGGLES, LOG + RUN_IS_RESUMED, TOKEN_IS_CHANGED, FAILURES],
    ids=["view is closed", "quick toggles", "run is resumed", "token is changed", "failures"],
)
def test_what_the_scripts_do(actions, tmp_path):
    for name, text in scripts().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(DOM, tmp_path)
    (tmp_path / "actions.js").write_text(actions)
    done = subprocess.run(["node", "actions.js"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_needs_no_other_host():
    for name in [*scripts(), "page.css", "style.css", ""]:
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", text_of(name)))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert "@import" not in text_of(name)
        assert not re.search(r"url\((?!#)", text_of(name)), name


def test_the_page_follows_the_scheme_of_the_browser_and_narrow_screens():
    assert "color-scheme: light dark" in text_of("style.css")
    assert "@media (max-width: 600px)" in text_of("page.css")
    assert ":focus-visible" in text_of("page.css")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    (place / "saved").mkdir()
    with client_of(place / "saved", write_configs(place / "configs")) as found:
        yield found


def test_the_service_gives_the_page_without_a_token_and_with_its_headers(client):
    for address, name in (("/", ""), *((f"/static/{each}", each) for each in (*scripts(), "page.css", "style.css"))):
        answer = client.get(address, headers={"authorization": ""})
        content, media_type, headers = page_file(name)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, content, media_type)
        for key, value in headers.items():
            assert answer.headers.get_list(key) == [value], key  # a second policy could only forbid more
    assert client.get("/api/overview", headers={"authorization": ""}).status_code == 401
    assert client.get("/static/page.py", headers={"authorization": ""}).status_code == 404


def test_the_service_has_every_address_that_the_scripts_ask_for(client):
    known = {re.sub(r"\{\w+\}", "*", path) for path in client.get("/openapi.json").json()["paths"]}
    text = "".join(scripts().values())
    bases = {f"/api/{kind}/*" for kind in re.findall(r'apiPath\("(\w+)", id', text)}
    assert bases == {"/api/studies/*", "/api/runs/*", "/api/jobs/*"}
    bases.add("/api/studies/*/candidates/*")
    whole = set(re.findall(r'"(/(?:api/\w+|login|logout))"', text))
    ends = set(re.findall(r"`\$\{(?:path|study)\}/([\w/]+)[`?]", text)) | set(re.findall(r'send\("(\w+)"', text))
    assert {"/login", "/api/overview", "/api/events"} <= whole
    assert {"candidates", "figures", "report", "stop", "resume", "pause", "add", "enqueue", "log/stream"} <= ends
    assert whole | bases <= known
    # Which of the bases an end belongs to is not read: one must have it.
    ends = {f"{end}*" if end.endswith("/") else end for end in ends}
    assert [end for end in ends if not any(f"{base}/{end}" in known for base in bases)] == []
