"""The test kit itself: what other tests take for granted."""

from __future__ import annotations

import socket
from collections.abc import Callable

import docker
import pytest
from docker.errors import APIError

from kit.images import Images
from kit.proxy import Proxy
from kit.redis import RedisServer
from kit.registry import PASSWORD, USER, Registry
from kit.require import missing, required


def test_a_missing_part_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE", "redis")
    with pytest.raises(pytest.skip.Exception, match="no docker: not here"):
        missing("docker", "not here")


def test_a_missing_part_that_is_required_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE", "redis, docker")
    with pytest.raises(pytest.fail.Exception, match="not here"):
        missing("docker", "not here")


def test_a_misspelt_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE", "dokcer")
    with pytest.raises(pytest.UsageError, match="dokcer"):
        required()


def test_what_redis_appended_survives_a_kill(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--appendonly", "yes", "--appendfsync", "always")
    with server.client() as client:
        client.set("key", "value")
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get("key") == b"value"


def test_a_proxy_lets_connections_hang_and_takes_none_when_told(redis_server: RedisServer) -> None:
    proxy = Proxy(redis_server.url)
    host, port = proxy.address.split(":")

    def ping(connection: socket.socket) -> bytes:
        connection.sendall(b"PING\r\n")
        return connection.recv(16)

    with socket.create_connection((host, port), 0.5) as first, socket.create_connection((host, port), 20) as second:
        assert ping(first) == ping(second) == b"+PONG\r\n"
        proxy.hang(quiet=0)
        with pytest.raises(TimeoutError):
            ping(first)
        proxy.shut()
        assert second.recv(16) == b""
        with socket.create_connection((host, port), 20) as refused:
            assert refused.recv(16) == b""
        proxy.open()
        with socket.create_connection((host, port), 20) as third:
            assert ping(third) == b"+PONG\r\n"
    proxy.close()


def _run(engine: docker.DockerClient, name: str, *command: str) -> bytes:
    written: bytes = engine.containers.run(name, list(command) or None, remove=True)
    return written


def test_an_image_has_what_was_asked_for(engine: docker.DockerClient, image: Images) -> None:
    script = '#!/bin/sh\necho "$1 $NAME $(id -u) $(pwd) $(cat /a/b)"\n'
    name = image("given", env={"NAME": '$HOME "and" \\n'}, user="user", workdir="/work", files={"/run.sh": script, "/a/b": b"content"}, entrypoint=["/run.sh"])
    assert _run(engine, name) == b'given $HOME "and" \\n 1000 /work content\n'
    assert _run(engine, name, "other").startswith(b"other ")


def test_equal_images_are_one(image: Images) -> None:
    assert image("true") == image("true")
    assert image("true") != image("false")


def test_an_image_comes_back_from_the_registry(engine: docker.DockerClient, image: Images, registry: Callable[..., Registry]) -> None:
    reference = registry().push(image("echo", "hello"), "team/hello")
    assert _run(engine, reference) == b"hello\n"


def test_a_registry_can_ask_for_a_login(engine: docker.DockerClient, image: Images, registry: Callable[..., Registry]) -> None:
    reference = registry(login=True).push(image("echo", "hello"), "hello")
    with pytest.raises(APIError):
        engine.images.pull(reference)
    engine.images.pull(reference, auth_config={"username": USER, "password": PASSWORD})
