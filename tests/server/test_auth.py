"""Who may call what: keys, the route table, hosts, origins."""

from __future__ import annotations

import hmac
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import AuthenticationError, OpenAI
from starlette.routing import Match

from hexad.config import Config
from hexad.errors import ConfigError, Unauthorized
from hexad.server import auth
from hexad.server.app import ROUTES, build_app
from hexad.server.auth import ANONYMOUS, Client, Keys
from hexad.server.gate import Gate
from hexad.server.models import Models, Served
from hexad.server.traffic import Traffic
from tests.server import raw
from tests.server.running import Server, serving

ALICE, BOB, BOSS = "alice-secret-key-1234", "bob-secret-key-123456", "boss-secret-key-12345"
KEYS = f"# who may\nalice:{ALICE}\nbob:{BOB}\n\nboss:{BOSS}:admin\n"
OPEN = {"/health", "/", "/docs", "/web/{version}/{file}"}


@pytest.fixture(scope="module")
def guarded(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("guarded")
    keys = directory / "keys"
    keys.write_text(KEYS)
    keys.chmod(0o600)
    with serving(chat_model, directory / "log", "--api-keys", str(keys), "--kv-memory", "32MiB") as server:
        yield server


def as_(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def every_route() -> list[tuple[str, str]]:
    app = build_app(Models([Served("demo", Config())]), Config(), Keys({}), Traffic())
    found = []
    for route in app.router.routes:
        for method in sorted(getattr(route, "methods", None) or ["GET"]):
            found.append((method, getattr(route, "path")))  # noqa: B009
    return found


def test_every_route_declares_who_may_call_it() -> None:
    declared = {(route.method, route.path) for route in ROUTES}
    undeclared = {(method, path) for method, path in every_route() if (method, path) not in declared}
    assert not undeclared
    assert {route.path for route in ROUTES if route.access == "open"} <= OPEN
    for route in ROUTES:
        assert (route.access == "admin") == route.path.startswith(("/admin", "/debug")), route.path


@pytest.mark.parametrize("host", [None, "a/?", "a/#", "x@localhost", "localhost:8000/health", "[::1"])
def test_no_route_answers_without_a_key(guarded: Server, host: str | None) -> None:
    """Also with a Host that would make another path of a URL put together from it."""
    for method, path in every_route():
        path = path.replace("{name:path}", "x").replace("{file}", "x").replace("{response_id}", "x")
        headers = {} if host is None else {"Host": host}
        answer = guarded.http.request(method, guarded.url + path, headers=headers)
        if host is not None:
            assert answer.status_code == 400, (method, path, answer.text)
        elif path not in OPEN and not path.startswith("/web/"):
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert guarded.http.request(method, guarded.url + path, headers=as_("wrong" * 5)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/models/", "//v1/models", "/health/../v1/models", "/health%2f..%2fv1/models", "/V1/models", "/nowhere"]
)
def test_no_way_around_the_table(guarded: Server, path: str) -> None:
    with httpx.Client() as client:
        request = client.build_request("GET", guarded.url)
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code == 401


def test_a_route_that_nobody_declared_is_closed() -> None:
    app = build_app(Models([Served("demo", Config())]), Config(), Keys({}), Traffic())

    @app.get("/forgotten")
    async def forgotten() -> str:
        return "open"

    gate = Gate(app, api=app, routes=ROUTES, config=Config(), keys=Keys({}), finished=lambda record: None)
    scope = {"type": "http", "method": "GET", "path": "/forgotten", "headers": [], "root_path": ""}
    assert any(route.matches(scope)[0] == Match.FULL for route in app.router.routes)
    assert gate._declared(scope)[1] is None


def test_the_header_of_either_dialect_opens(guarded: Server) -> None:
    url = guarded.url + "/v1/models"
    assert httpx.get(url, headers=as_(ALICE)).status_code == 200
    assert httpx.get(url, headers={"x-api-key": ALICE}).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"bearer  {ALICE}"}).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"Basic {ALICE}"}).status_code == 401
    assert httpx.get(url + f"?api_key={ALICE}").status_code == 401
    client = OpenAI(base_url=guarded.url + "/v1", api_key=ALICE, max_retries=0)
    assert client.models.list().data[0].id == "tiny-chat"
    with pytest.raises(AuthenticationError, match="does not know"):
        client.with_options(api_key="x" * 20).models.list()


def test_admin_routes_are_for_admins(guarded: Server, server: Server) -> None:
    url = guarded.url + "/debug/invariants"
    assert httpx.get(url, headers=as_(BOSS)).json() == {"ok": True, "broken": {}}
    refused = httpx.get(url, headers=as_(ALICE))
    assert refused.status_code == 403 and "alice" in refused.text
    nobody = httpx.get(server.url + "/debug/invariants")
    assert nobody.status_code == 403 and "--api-keys" in nobody.text


def test_tenants_share_no_cached_pages(guarded: Server) -> None:
    def cached(key: str, salt: str) -> int:
        body = {"prompt": [7] * 64, "max_tokens": 1, "cache_salt": salt}
        answer = httpx.post(guarded.url + "/v1/completions", json=body, headers=as_(key)).json()
        found: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return found

    assert [cached(ALICE, "") for _ in range(2)] == [0, 48]
    assert [cached(BOB, "") for _ in range(2)] == [0, 48]
    # Not even when the salt that one gives looks like the other's.
    assert cached(BOB, "alice\n") == 0 and cached(BOB, "\n") == 0


def test_only_admins_go_before_everybody(guarded: Server) -> None:
    def status(key: str, priority: int) -> int:
        body = {"prompt": "a", "max_tokens": 1, "priority": priority}
        return httpx.post(guarded.url + "/v1/completions", json=body, headers=as_(key)).status_code

    assert [status(ALICE, 0), status(ALICE, 5), status(ALICE, -1), status(BOSS, -1)] == [200, 200, 403, 200]


def test_one_client_cannot_fill_the_queue(chat_model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEYS)
    with serving(
        chat_model, tmp_path / "log", "--api-keys", str(keys), "--max-num-seqs", "1", "--max-queue", "9"
    ) as server:
        body = {"prompt": "a", "max_tokens": 1900, "ignore_eos": True, "stream": True}
        httpx.post(server.url + "/admin/pause", json={}, headers=as_(BOSS)).raise_for_status()
        first = [
            raw.sent(server, raw.post("/v1/completions", body, b"x-api-key: %b\r\n" % key))
            for key in [ALICE.encode()] * 5
        ]
        with raw.all_closed(first):
            server.until(lambda gauges: gauges["hexad:num_requests_waiting"] == 5, ALICE)
            full = httpx.post(server.url + "/v1/completions", json=body, headers=as_(ALICE))
            assert full.status_code == 429 and full.json()["error"]["code"] == "client_queue_full"
            assert full.headers["retry-after"] == "1" and "alice" in full.text
            other = raw.sent(server, raw.post("/v1/completions", body, b"x-api-key: %b\r\n" % BOB.encode()))
            with other:
                server.until(lambda gauges: gauges["hexad:num_requests_waiting"] == 6, ALICE)


def test_keys_are_compared_as_hashes_and_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text(KEYS)
    keys = Keys.load(str(tmp_path / "keys"))
    compared: list[tuple[bytes, bytes]] = []
    right = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return right(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    assert keys.client([(b"x-api-key", ALICE.encode())]) == Client("alice")
    assert keys.client([(b"authorization", b"Bearer " + BOSS.encode())]) == Client("boss", admin=True)
    with pytest.raises(Unauthorized):
        keys.client([(b"x-api-key", b"x" * 10_000)])
    assert len(compared) == 9 and {len(part) for part in itertools.chain(*compared)} == {32}
    assert Keys({}).client([]) is ANONYMOUS


@pytest.mark.parametrize(
    "text", ["alice", "alice:short", f"a b:{ALICE}", f"alice:{ALICE}:root", f"a:{ALICE}\nb:{ALICE}", "", "# none", "é"]
)
def test_a_key_file_that_is_wrong_is_refused_without_showing_the_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError) as refused:
        Keys.load(str(tmp_path / "keys"))
    assert refused.value.param == "api_keys" and ALICE not in str(refused.value)


MISSES = {
    ("GET", "/v1/messages"): 405,
    ("POST", "/v1/messages/batches"): 404,
    ("GET", "/api/chat"): 405,
    ("POST", "/api/nothing"): 404,
    ("GET", "/v1/chat/completions"): 405,
    ("GET", "/v1/nothing"): 404,
    ("GET", "/nothing"): 404,
    ("GET", "/infill"): 405,
}


@pytest.mark.parametrize(("method", "path"), MISSES)
def test_what_is_not_there_is_refused_in_the_words_of_its_neighbours(guarded: Server, method: str, path: str) -> None:
    for headers, status in (({}, 401), (as_(ALICE), MISSES[method, path])):
        answer = guarded.http.request(method, guarded.url + path, headers=headers)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        if "/api/" in path:
            assert isinstance(error, str)
        elif "/messages" in path:
            assert answer.json()["type"] == "error" and set(error) == {"type", "message"}
        elif path == "/infill":
            assert error["code"] == status
        else:
            assert set(error) == {"message", "type", "param", "code"}


def test_a_model_that_is_not_there_is_refused_in_the_words_of_who_asks(guarded: Server) -> None:
    asked = {"headers": as_(ALICE) | {"anthropic-version": "2023-06-01"}}
    for path in ("/v1/models/none", "/v1/models?limit=0"):
        assert guarded.http.get(guarded.url + path, **asked).json()["type"] == "error"


def test_no_page_loads_anything_from_elsewhere(guarded: Server) -> None:
    """A script of others would run beside the key that our page keeps."""
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert guarded.http.get(guarded.url + path, headers=as_(ALICE)).status_code == 404
    docs = guarded.http.get(guarded.url + "/docs")
    assert "script-src 'self'" in docs.headers["content-security-policy"] and "://" not in docs.text
    assert guarded.http.get(guarded.url + "/openapi.json", headers=as_(ALICE)).json()["openapi"].startswith("3.")


def test_a_key_may_keep_a_model_longer_and_only_an_admins_may_unload_or_pin_it(
    chat_model: Path, tmp_path: Path
) -> None:
    """Many of Ollama's clients send `keep_alive` with every request."""
    (tmp_path / "keys").write_text(KEYS)
    options = ("--api-keys", str(tmp_path / "keys"), "--kv-memory", "32MiB", "--keep-alive", "1h")
    with serving(chat_model, tmp_path / "log", *options) as server:

        def asked(key: str, keep_alive: object, **body: object) -> httpx.Response:
            given = {"model": "tiny-chat", "keep_alive": keep_alive, "stream": False} | body
            return server.http.post(server.url + "/api/generate", json=given, headers=as_(key))

        def stays() -> float:
            (model,) = server.http.get(server.url + "/admin/models", headers=as_(BOSS)).json()["models"]
            return float(model["expires_at"]) - time.time()

        for too_much in (0, "0s", -1, "25h", 86401):
            for body in ({}, {"prompt": "a"}):
                answer = asked(ALICE, too_much, **body)
                assert answer.status_code == 403 and "keep_alive" in answer.json()["error"]
        for given, least in (("5m", 3600), ("1ms", 3600), ("2h", 7200), ("5m", 7200)):
            assert asked(ALICE, given).status_code == 200
            assert least - 600 < stays() <= least + 1, "longer, never shorter"
        assert asked(BOSS, "10m").status_code == 200 and stays() <= 601
        assert asked(BOSS, -1).status_code == 200 and asked(ALICE, "5m").status_code == 200
        (model,) = server.http.get(server.url + "/admin/models", headers=as_(BOSS)).json()["models"]
        assert model["expires_at"] is None


def test_asking_about_a_model_ends_no_drain(chat_model: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEYS)
    models = [str(chat_model), "ghost=/nowhere/at/all"]
    with serving(models, tmp_path / "log", "--api-keys", str(tmp_path / "keys"), "--kv-memory", "32MiB") as server:
        server.http.post(server.url + "/admin/drain", json={"model": "ghost"}, headers=as_(BOSS))
        shown = server.http.post(server.url + "/api/show", json={"model": "ghost"}, headers=as_(ALICE))
        assert shown.status_code == 503 and "drained" in shown.text


def test_tenants_do_not_see_what_others_use(guarded: Server) -> None:
    asked = {"prompt": "a", "max_tokens": 1}
    assert guarded.http.post(guarded.url + "/v1/completions", json=asked, headers=as_(BOB)).status_code == 200
    seen = {key: guarded.http.get(guarded.url + "/metrics", headers=as_(key)).text for key in (ALICE, BOSS)}
    assert 'client="bob"' not in seen[ALICE] and 'client="bob"' in seen[BOSS]
    assert "hexad:prompt_tokens_total" in seen[ALICE]
