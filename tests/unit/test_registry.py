"""Images in registries: the real docker-registry with real images, and small servers for what no real one would do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from yarl import URL

from dray.backends.kubernetes.fetch import harmless
from dray.backends.kubernetes.logins import Logins, from_secrets
from dray.backends.kubernetes.registry import ImageConfig, Images
from dray.errors import BadSetting, Invalid
from dray.pod import Fault
from dray.reason import Reason
from dray.settings import Settings
from dray.spec import parse
from kit.answering import Answering, Asked, Told
from kit.images import Images as Built
from kit.registry import PASSWORD, USER, Registry

OCI_MANIFEST, OCI_CONFIG = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
OCI_INDEX, DOCKER_LIST = "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No long pauses between tries, no logins or proxies of whoever runs the tests."""
    monkeypatch.setattr("dray.backends.kubernetes.registry._FIRST_PAUSE", 0.01)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server() -> Iterator[Callable[[], Answering]]:
    with ExitStack() as made:

        def make() -> Answering:
            started = Answering()
            made.callback(started.close)
            return started

        yield make


NO_LOGINS = Logins()


def ask(*sources: str, logins: Logins = NO_LOGINS, architecture: str = "amd64", **settings: Any) -> list[ImageConfig | Fault]:
    """One after the other, by the same Images."""

    async def asked() -> list[ImageConfig | Fault]:
        images = Images(Settings(**settings))
        try:
            return [await images.config(source, logins, architecture) for source in sources]
        finally:
            await images.close()

    return asyncio.run(asked())


def found(source: str, **how: Any) -> ImageConfig:
    (image,) = ask(source, **how)
    assert isinstance(image, ImageConfig), image
    return image


def fault(source: str, **how: Any) -> Fault:
    """It always names the image."""
    (image,) = ask(source, **how)
    assert isinstance(image, Fault), image
    assert source in image.message
    return image


def secret(*entries: tuple[str, str, str], legacy: bool = False) -> dict[str, Any]:
    """A pull secret as the API server has it: (registry, user, password)."""
    auths = {where: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()} for where, user, password in entries}
    key, content = (".dockercfg", auths) if legacy else (".dockerconfigjson", {"auths": auths})
    return {"metadata": {"name": "pull"}, "data": {key: base64.b64encode(json.dumps(content).encode()).decode()}}


# --- the real registry


def test_what_an_image_runs_comes_from_its_registry(registry: Callable[..., Registry], image: Built) -> None:
    mine = registry()
    made = image("-n", "two words", entrypoint=["echo"], user="1000:1000")
    source = mine.push(made, "team/app", "1.0")
    seen = found(source)
    assert (seen.entrypoint, seen.args, seen.user) == (("echo",), ("-n", "two words"), "1000:1000")


def test_a_tag_means_what_it_means_now_and_a_pinned_one_the_same_for_ever(registry: Callable[..., Registry], image: Built) -> None:
    mine = registry()
    source = mine.push(image("echo", "first"), "moving")
    before = found(source.removesuffix(":latest"))
    mine.push(image("echo", "second"), "moving")
    assert found(source).args == ("echo", "second")
    repository, _, digest = before.pinned.partition("@")
    assert repository == f"{mine.address}/moving"
    assert found(before.pinned).args == found(f"{mine.address}/moving:latest@{digest}").args == ("echo", "first")


def test_the_image_of_an_index_is_the_one_for_the_nodes_architecture(registry: Callable[..., Registry], image: Built) -> None:
    mine = registry()
    v2 = f"http://{mine.address}/v2/app/manifests"
    entries = []
    for architecture in ("arm64", "amd64"):
        mine.push(image("echo", architecture), "app", architecture)
        held = httpx.get(f"{v2}/{architecture}", headers={"Accept": DOCKER_MANIFEST})
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": DOCKER_MANIFEST, "size": len(held.content), "digest": held.headers["docker-content-digest"], "platform": platform})
    for kind in (OCI_INDEX, DOCKER_LIST):
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries})
        put = httpx.put(f"{v2}/every", content=body, headers={"Content-Type": kind}).raise_for_status()
        here, there = found(f"{mine.address}/app:every"), found(f"{mine.address}/app:every", architecture="arm64")
        assert (here.args, there.args) == (("echo", "amd64"), ("echo", "arm64"))
        assert here.pinned == there.pinned == f"{mine.address}/app@{put.headers['docker-content-digest']}"
        none = fault(f"{mine.address}/app:every", architecture="s390x")
        assert none.reason is Reason.IMAGE_NOT_FOUND
        assert "linux/s390x" in none.message


def test_an_image_in_ocis_own_form_is_read_like_dockers(registry: Callable[..., Registry], image: Built) -> None:
    mine = registry()
    mine.push(image("echo", "oci"), "app")
    v2 = f"http://{mine.address}/v2/app/manifests"
    held = httpx.get(f"{v2}/latest", headers={"Accept": DOCKER_MANIFEST}).json()
    layers = [layer | {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"} for layer in held["layers"]]
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": held["config"] | {"mediaType": OCI_CONFIG}, "layers": layers}
    httpx.put(f"{v2}/oci", content=json.dumps(body), headers={"Content-Type": OCI_MANIFEST}).raise_for_status()
    assert found(f"{mine.address}/app:oci").args == ("echo", "oci")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pull_secret_opens_its_registry(registry: Callable[..., Registry], image: Built, legacy: bool) -> None:
    private = registry(login=True)
    source = private.push(image("echo", "private"), "app")
    wrong = secret((private.address, USER, "wrong"), legacy=legacy)
    right = secret((f"https://{private.address}/v2/", USER, PASSWORD), legacy=legacy)
    assert fault(source).reason is Reason.IMAGE_NOT_FOUND
    assert fault(source, logins=from_secrets([wrong])).reason is Reason.IMAGE_NOT_FOUND
    assert found(source, logins=from_secrets([wrong, right])).args == ("echo", "private")


def test_a_registry_with_a_token_server_is_opened_by_a_login_for_it(registry: Callable[..., Registry], image: Built) -> None:
    private = registry(tokens=True)
    source = private.push(image("echo", "private"), "team/app")
    assert found(source, logins=from_secrets([secret((private.address, USER, PASSWORD))])).args == ("echo", "private")
    assert fault(source, logins=from_secrets([secret((private.address, USER, "wrong"))])).reason is Reason.IMAGE_NOT_FOUND
    assert fault(source).reason is Reason.IMAGE_NOT_FOUND


def test_the_operators_own_login_counts_after_the_jobs(
    registry: Callable[..., Registry], image: Built, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private = registry(login=True)
    source = private.push(image("echo", "private"), "app")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {private.address: {"auth": auth}}}))
    assert found(source, logins=from_secrets([secret((private.address, USER, "wrong"))])).args == ("echo", "private")
    for nonsense in ({"auths": {private.address: "nonsense"}}, {"auths": {private.address: {"auth": "!"}}}, [1]):
        (tmp_path / "config.json").write_text(json.dumps(nonsense))
        broken = fault(source)
        assert broken.reason is Reason.IMAGE_PULL_FAILED
        assert "config.json" in broken.message


def test_a_registry_with_tls_is_trusted_by_its_authority_only(registry: Callable[..., Registry], image: Built, tmp_path: Path) -> None:
    private = registry(login=True, tls=True)
    source = private.push(image("echo", "safe"), "app")
    logins = from_secrets([secret((private.address, USER, PASSWORD))])
    assert found(source, logins=logins, registry_ca=private.certificate).args == ("echo", "safe")
    untrusted = fault(source, logins=logins)
    assert untrusted.reason is Reason.IMAGE_PULL_FAILED
    assert "certificate" in untrusted.message
    with pytest.raises(BadSetting, match="DRAY_REGISTRY_CA"):
        ask(source, registry_ca=tmp_path / "absent.pem")


def test_an_absent_image_and_an_absent_registry_are_told_apart(registry: Callable[..., Registry], image: Built) -> None:
    mine = registry()
    source = mine.push(image("echo", "x"), "app")
    assert fault(f"{mine.address}/app:other").reason is Reason.IMAGE_NOT_FOUND
    assert fault(f"{mine.address}/no/such").reason is Reason.IMAGE_NOT_FOUND
    assert fault(f"{mine.address}/app@sha256:{'0' * 64}").reason is Reason.IMAGE_NOT_FOUND
    mine.kill()
    assert fault(source).reason is Reason.IMAGE_PULL_FAILED


def test_steps_are_pinned_or_named(registry: Callable[..., Registry], image: Built) -> None:
    mine = registry()
    source = mine.push(image("echo", "x"), "app")
    spec = parse({"steps": [{"source": source}, {"source": f"{mine.address}/no"}, {"source": f"{mine.address}/neither"}]})

    async def pin() -> tuple[str, ...]:
        images = Images(Settings())
        try:
            assert await images.pin(parse({"steps": [{"source": source}] * 2}), NO_LOGINS, "amd64") == (found_pinned,) * 2
            return await images.pin(spec, NO_LOGINS, "amd64")
        finally:
            await images.close()

    found_pinned = found(source).pinned
    with pytest.raises(Invalid) as refused:
        asyncio.run(pin())
    assert [error.field for error in refused.value.errors] == ["steps[1].source", "steps[2].source"]


# --- what registries answer


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def holds(server: Answering, config: Any, manifest: dict[str, Any] | None = None, tag: str = "latest") -> str:
    """An image app on the server; its reference."""
    body = json.dumps(config).encode()
    server.answers[f"/v2/app/blobs/{digest_of(body)}"] = Told(body=body)
    held = json.dumps({"schemaVersion": 2, "config": {"mediaType": OCI_CONFIG, "digest": digest_of(body), "size": len(body)}} | (manifest or {})).encode()
    server.answers[f"/v2/app/manifests/{digest_of(held)}"] = Told(body=held, headers={"Content-Type": OCI_MANIFEST})
    server.answers[f"/v2/app/manifests/{tag}"] = Told(body=held, headers={"Docker-Content-Digest": digest_of(held)})
    return f"{server.address}/app:{tag}"


RUNS = {"config": {"Entrypoint": ["run"], "Cmd": None}}


def test_what_is_known_by_digest_costs_one_head_for_a_tag_and_nothing_without(server: Callable[[], Answering]) -> None:
    mine = server()
    source = holds(mine, RUNS)
    first, again, pinned = ask(source, source, f"{source}@{digest_of(mine.answers['/v2/app/manifests/latest'].body)}")  # type: ignore[union-attr]
    assert isinstance(first, ImageConfig)
    assert isinstance(pinned, ImageConfig)
    assert first == again
    assert (pinned.entrypoint, pinned.pinned) == (("run",), first.pinned)
    heads = [path for path in mine.paths() if path.startswith("HEAD")]
    assert heads == ["HEAD /v2/app/manifests/latest"] * 2
    assert len(mine.paths()) == 4


def test_the_same_question_at_the_same_time_is_asked_once(server: Callable[[], Answering]) -> None:
    mine = server()
    source = holds(mine, RUNS)

    async def many() -> set[ImageConfig | Fault]:
        images = Images(Settings())
        try:
            return set(await asyncio.gather(*(images.config(source, NO_LOGINS, "amd64") for _ in range(50))))
        finally:
            await images.close()

    assert len(asyncio.run(many())) == 1
    assert len(mine.paths()) == 3


def test_a_registry_that_names_no_digest_is_read_all_the_same(server: Callable[[], Answering]) -> None:
    mine = server()
    source = holds(mine, RUNS)
    held = mine.answers["/v2/app/manifests/latest"]
    assert isinstance(held, Told)
    mine.answers["/v2/app/manifests/latest"] = Told(body=held.body)
    assert found(source).pinned == f"{mine.address}/app@{digest_of(held.body)}"


def test_an_image_that_says_nothing_of_what_it_runs_runs_nothing(server: Callable[[], Answering]) -> None:
    seen = found(holds(server(), {"architecture": "amd64"}))
    assert (seen.entrypoint, seen.args, seen.user) == ((), (), "")


@pytest.mark.parametrize(
    ("config", "manifest", "reason"),
    [
        ({"config": {"Entrypoint": "a string"}}, {}, Reason.IMAGE_PULL_FAILED),
        ({"config": {"Entrypoint": ["nul\0"]}}, {}, Reason.IMAGE_PULL_FAILED),
        ([], {}, Reason.IMAGE_PULL_FAILED),
        (RUNS, {"manifests": [{"digest": "sha256:" + "0" * 64}]}, Reason.IMAGE_PULL_FAILED),
        (RUNS, {"config": {"digest": "../../etc"}}, Reason.IMAGE_PULL_FAILED),
        (RUNS, {"config": {"digest": "sha256:" + "0" * 64, "mediaType": "application/vnd.cncf.helm.config.v1+json"}}, Reason.IMAGE_NOT_FOUND),
        (RUNS, {"config": None, "schemaVersion": 1}, Reason.IMAGE_NOT_FOUND),
        ({"junk": "x" * 2**20}, {}, Reason.IMAGE_PULL_FAILED),
        (RUNS, {"junk": "x" * 2**20}, Reason.IMAGE_PULL_FAILED),
    ],
)
def test_damaged_and_oversized_answers_are_refused(server: Callable[[], Answering], config: Any, manifest: dict[str, Any], reason: Reason) -> None:
    assert fault(holds(server(), config, manifest)).reason is reason


def test_what_does_not_match_its_digest_is_refused(server: Callable[[], Answering]) -> None:
    mine = server()
    source = holds(mine, RUNS)
    for path in [path for path in mine.answers if "/blobs/" in path]:
        mine.answers[path] = Told(body=b'{"config": {"Entrypoint": ["evil"]}}')
    assert fault(source).reason is Reason.IMAGE_PULL_FAILED


def test_indexes_without_end_come_to_an_end(server: Callable[[], Answering]) -> None:
    mine, inner = server(), b'{"manifests": []}'
    for _ in range(10):
        mine.answers[f"/v2/app/manifests/{digest_of(inner)}"] = Told(body=inner)
        inner = json.dumps({"manifests": [{"digest": digest_of(inner)}]}).encode()
    mine.answers["/v2/app/manifests/latest"] = Told(headers={"Docker-Content-Digest": digest_of(inner)})
    mine.answers[f"/v2/app/manifests/{digest_of(inner)}"] = Told(body=inner)
    assert fault(f"{mine.address}/app").reason is Reason.IMAGE_NOT_FOUND


def test_a_registry_that_falters_is_asked_three_times(server: Callable[[], Answering]) -> None:
    mine = server()
    source = holds(mine, RUNS)
    held, answers = mine.answers["/v2/app/manifests/latest"], iter([503, 429])

    def falters(asked: Asked) -> Told:
        status = next(answers, 200)
        return held if status == 200 and isinstance(held, Told) else Told(status)

    mine.answers["/v2/app/manifests/latest"] = falters
    assert found(source).entrypoint == ("run",)
    mine.answers["/v2/app/manifests/latest"] = Told(500)
    assert "500" in fault(source).message
    assert mine.paths().count("HEAD /v2/app/manifests/latest") == 6


def test_a_registry_that_hangs_is_given_up(server: Callable[[], Answering], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dray.backends.kubernetes.registry._LONGEST", 0.5)
    mine = server()
    source = holds(mine, RUNS)
    mine.answers["/v2/app/manifests/latest"] = Told(headers={"Content-Length": "100", "Docker-Content-Digest": "sha256:" + "0" * 64})
    mine.answers["/v2/app/manifests/sha256:" + "0" * 64] = Told(body=b"a", headers={"Content-Length": "100"})
    assert fault(source).reason is Reason.IMAGE_PULL_FAILED


# --- tokens


def guarded(registry: Answering, tokens: Answering, life: int = 300, login: str = "") -> None:
    """The registry wants a token of the token server's for all that it has; that wants the login, as name:password."""
    challenge = f'Bearer realm="http://{tokens.address}/token",service="the registry",scope="repository:app:pull"'

    def behind(told: Told) -> Callable[[Asked], Told]:
        return lambda asked: told if asked.headers.get("authorization") == "Bearer good" else Told(401, headers={"WWW-Authenticate": challenge})

    def token(asked: Asked) -> Told:
        basic = f"Basic {base64.b64encode(login.encode()).decode()}"
        if login and asked.headers.get("authorization") != basic:
            return Told(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}')
        return Told(body=json.dumps({"token": "good", "expires_in": life}).encode())

    registry.answers = {path: behind(told) for path, told in registry.answers.items() if isinstance(told, Told)}
    tokens.answers["/token"] = token


def test_a_token_is_asked_for_once_and_kept(server: Callable[[], Answering]) -> None:
    mine, tokens = server(), server()
    source = holds(mine, RUNS)
    guarded(mine, tokens)
    first, again = ask(source, source)
    assert first == again
    assert isinstance(first, ImageConfig)
    (asked,) = tokens.asked
    assert dict(pair.split("=") for pair in asked.query.split("&")) == {"service": "the+registry", "scope": "repository:app:pull"}
    assert "authorization" not in asked.headers


def test_the_token_server_gets_the_login_and_the_registry_only_the_token(server: Callable[[], Answering]) -> None:
    mine, tokens = server(), server()
    source = holds(mine, RUNS)
    guarded(mine, tokens, login="me:mine")
    assert found(source, logins=from_secrets([secret((mine.address, "me", "mine"))])).entrypoint == ("run",)
    assert {asked.headers.get("authorization") for asked in mine.asked} == {None, "Bearer good"}
    refused = fault(source)
    assert refused.reason is Reason.IMAGE_NOT_FOUND
    assert "who are you" in refused.message


def test_an_identity_token_is_traded_for_one_of_the_registrys(server: Callable[[], Answering], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine, tokens = server(), server()
    source = holds(mine, RUNS)
    guarded(mine, tokens)
    tokens.answers = {"POST /token": lambda asked: Told(body=b'{"access_token": "good"}') if b"refresh_token=mine" in asked.body else Told(401)}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {mine.address: {"identitytoken": "mine"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert found(source).entrypoint == ("run",)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": ""}', b'{"token": "a\\r\\nEvil: 1"}', b'{"token": 3}'])
def test_a_token_server_that_gives_none_is_a_failure(server: Callable[[], Answering], body: bytes) -> None:
    mine, tokens = server(), server()
    source = holds(mine, RUNS)
    guarded(mine, tokens)
    tokens.answers["/token"] = Told(body=body)
    assert fault(source).reason in (Reason.IMAGE_PULL_FAILED, Reason.IMAGE_NOT_FOUND)


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", 'Bearer realm="file:///etc/passwd"', 'Bearer realm="http://["', "Negotiate", 'Bearer realm="' + "x" * 4000, "x" * 8000]
)
def test_a_challenge_that_cannot_be_met_is_a_fault(server: Callable[[], Answering], challenge: str) -> None:
    mine = server()
    mine.answers["/v2/app/manifests/latest"] = Told(401, headers={"WWW-Authenticate": challenge})
    fault(f"{mine.address}/app")


# --- redirects and secrets


def test_a_login_does_not_follow_a_redirect_elsewhere(server: Callable[[], Answering]) -> None:
    mine, elsewhere = server(), server()
    source = holds(mine, RUNS)
    held = {path: told for path, told in mine.answers.items() if isinstance(told, Told)}
    wanted = f"Basic {base64.b64encode(b'me:mine').decode()}"
    for path, told in held.items():
        moved = Told(307, headers={"Location": f"http://{elsewhere.address}{path}?signed=%2Fa%2B"}) if "/blobs/" in path else told
        mine.answers[path] = lambda asked, moved=moved: (  # type: ignore[misc]
            moved if asked.headers.get("authorization") == wanted else Told(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        )
        elsewhere.answers[path] = told
    assert found(source, logins=from_secrets([secret((mine.address, "me", "mine"))])).entrypoint == ("run",)
    (asked,) = elsewhere.asked
    assert "authorization" not in asked.headers
    assert asked.query == "signed=%2Fa%2B"


@pytest.mark.parametrize("location", ["/v2/app/manifests/latest", "ftp://127.0.0.1/x", "http://[", "//", "gopher:x"])
def test_redirects_in_a_circle_or_to_nowhere_are_a_failure(server: Callable[[], Answering], location: str) -> None:
    mine = server()
    mine.answers["/v2/app/manifests/latest"] = Told(302, headers={"Location": location})
    assert fault(f"{mine.address}/app").reason in (Reason.IMAGE_PULL_FAILED, Reason.IMAGE_NOT_FOUND)


@pytest.mark.parametrize(
    ("target", "origin", "expected"),
    [
        ("https://auth.docker.io/token", "https://registry-1.docker.io", True),
        ("https://registry.example/token", "https://registry.example", True),
        ("http://registry.example/token", "https://registry.example", False),
        ("http://registry.example/token", "http://registry.example", True),
        ("https://169.254.169.254/latest/meta-data", "https://registry.example", False),
        ("http://127.0.0.1:6379/", "http://registry.example", False),
        ("http://2130706433/", "http://registry.example", False),
        ("http://0x7f.1/", "http://registry.example", False),
        ("http://[::1]/", "http://registry.example", False),
        ("http://localhost/", "http://registry.example", False),
        ("https://10.0.0.5/token", "https://10.0.0.5", True),
        ("https://10.0.0.6/token", "https://10.0.0.5", True),
        ("file:///etc/passwd", "https://registry.example", False),
    ],
)
def test_where_a_registry_may_send_us(target: str, origin: str, expected: bool) -> None:
    assert harmless(URL(target), URL(origin)) is expected


def test_short_names_are_docker_hubs_and_proxies_are_the_environments(server: Callable[[], Answering], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = server()
    proxy.answers["CONNECT registry-1.docker.io:443"] = Told(502)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    assert fault("busybox").reason is Reason.IMAGE_PULL_FAILED
    assert set(proxy.paths()) == {"CONNECT registry-1.docker.io:443"}


def test_only_named_registries_are_asked_without_tls(server: Callable[[], Answering], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = server()
    proxy.answers["HEAD http://plain.example:5000/v2/app/manifests/latest"] = Told(404)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    assert fault("plain.example:5000/app", plain_registries=("plain.example:5000",)).reason is Reason.IMAGE_NOT_FOUND
    assert fault("other.example:5000/app", plain_registries=("plain.example:5000",)).reason is Reason.IMAGE_PULL_FAILED
    assert {path for path in proxy.paths() if "other" in path} == {"CONNECT other.example:5000"}


@pytest.mark.parametrize("source", ["127.0.0.1:99999/a", "a.example:" + "9" * 20 + "/a", "a" * 300, "a@sha256:" + "0" * 32, "a@no-such:" + "0" * 64])
def test_a_name_that_no_image_can_have_is_not_found(source: str) -> None:
    assert fault(source).reason is Reason.IMAGE_NOT_FOUND
