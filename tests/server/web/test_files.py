"""The page's files as the server hands them out; what they do in a browser is in test_web_browser.py."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

import hexad
from tests.server.running import Server

FOLDER = Path(hexad.__file__).parent / "server" / "web"
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix != ".html")
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def page(server: Server) -> httpx.Response:
    return server.http.get(server.url + "/", headers=BROWSER)


@pytest.fixture(scope="module")
def docs(server: Server) -> httpx.Response:
    return server.http.get(server.url + "/docs")


@pytest.fixture(scope="module")
def base(page: httpx.Response) -> str:
    """Where the page's files are: /web/{version}/."""
    found = re.search(r'src="(/web/[0-9a-f]{16}/)main\.js"', page.text)
    assert found
    return found[1]


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.script_text = ""
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.script_text += data.strip()


def test_a_browser_gets_the_page_and_nothing_in_it_may_come_from_elsewhere(page: httpx.Response) -> None:
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["img-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert page.headers["x-content-type-options"] == "nosniff"


def test_the_page_holds_no_inline_script_or_style(page: httpx.Response) -> None:
    parsed = _Tags(page.text)
    assert not parsed.script_text
    for tag, attributes in parsed.tags:
        assert tag != "style"
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_served_as_it_is_and_for_ever(server: Server, base: str, path: Path) -> None:
    answer = server.http.get(f"{server.url}{base}{path.name}")
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[path.suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    again = server.http.get(f"{server.url}{base}{path.name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_is_not_sent_again_to_who_has_it(server: Server, page: httpx.Response) -> None:
    again = server.http.get(server.url + "/", headers=BROWSER | {"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == page.headers["content-security-policy"]


def test_what_the_files_refer_to_is_served_and_no_file_is_left_over(
    base: str, page: httpx.Response, docs: httpx.Response
) -> None:
    tags = [*_Tags(page.text).tags, *_Tags(docs.text).tags]
    needed = {value[len(base) :] for _, a in tags for value in a.values() if value and base in value}
    for path in FILES:
        needed |= set(re.findall(r'from "\./([\w.]+)"', path.read_text()))
    assert needed == {path.name for path in FILES}


def test_the_docs_have_the_pages_policy(page: httpx.Response, docs: httpx.Response) -> None:
    assert docs.headers["content-type"] == "text/html; charset=utf-8"
    assert docs.headers["content-security-policy"] == page.headers["content-security-policy"]


def test_no_file_names_another_server(page: httpx.Response, docs: httpx.Response) -> None:
    for text in [page.text, docs.text, *(path.read_text() for path in FILES)]:
        named = set(re.findall(r"https?://[\w.-]+[^\s\"'`]*|[\"'(]//[\w.-]+", text))
        assert named <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}


def test_no_script_turns_text_into_html_or_code() -> None:
    doors = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|setHTML|DOMParser|eval\("
    for path in FOLDER.glob("*.js"):
        assert not re.findall(doors, path.read_text()), path.name


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}, {"Accept": "application/json"}], ids=str)
def test_who_does_not_ask_for_html_gets_the_words_that_ollama_says(server: Server, headers: dict[str, str]) -> None:
    answer = server.http.get(server.url + "/", headers=headers)
    assert (answer.status_code, answer.text) == (200, "Ollama is running")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["vary"] == "Accept"


def test_head_is_answered_as_ollamas_clients_probe_it(server: Server) -> None:
    answer = server.http.head(server.url + "/", headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "path", ["nothing.js", "index.html", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "web.py", "%00", ""]
)
def test_a_file_that_is_none_is_not_found(server: Server, base: str, path: str) -> None:
    answer = server.http.get(f"{server.url}{base}{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_file_of_another_version_is_not_found(server: Server) -> None:
    answer = server.http.get(f"{server.url}/web/{'0' * 16}/main.js")
    assert answer.status_code == 404
    assert "reload the page" in answer.json()["error"]["message"]
