"""Which login counts for which image: as the kubelet has it."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

from dray.backends.kubernetes.logins import from_secrets, names
from dray.backends.kubernetes.reference import parse


def holding(content: Any, key: str = ".dockerconfigjson") -> dict[str, Any]:
    return {"metadata": {"name": "pull"}, "data": {key: base64.b64encode(json.dumps(content).encode()).decode()}}


def users(image: str, *where: str) -> list[str]:
    """The users, named like the places that their logins are for, that an image is asked for with."""
    logins = from_secrets([holding({"auths": {place: {"username": place, "password": "x"} for place in where}})])
    return [login.username for login in logins.of(parse(image))]


@pytest.mark.parametrize(
    ("image", "place", "counts"),
    [
        ("registry.example/team/app", "registry.example", True),
        ("registry.example/team/app", "https://registry.example/v1/", True),
        ("registry.example/team/app", "registry.example/team", True),
        ("registry.example/team/app", "registry.example/other", False),
        ("registry.example/team/app", "*.example", True),
        ("registry.example/team/app", "*.example:443", False),
        ("a.b.example/app", "*.example", False),
        ("registry.example:5000/app", "registry.example:5000", True),
        ("registry.example:5000/app", "registry.example", False),
        ("registry.example/app", "registry.example.evil", False),
        ("busybox", "https://index.docker.io/v1/", True),
        ("docker.io/library/busybox", "docker.io", True),
        ("team/app", "docker.io/team", True),
        ("busybox", "docker.io/team", False),
    ],
)
def test_a_login_counts_where_its_place_says(image: str, place: str, counts: bool) -> None:
    assert users(image, place) == ([place] if counts else [])


def test_the_narrowest_place_comes_first() -> None:
    assert users("registry.example/team/app", "registry.example", "registry.example/team/app", "registry.example/team") == [
        "registry.example/team/app",
        "registry.example/team",
        "registry.example",
    ]


def test_logins_are_read_in_every_form() -> None:
    auth = base64.b64encode(b"me:my:own").decode()
    forms = [holding({"auths": {"a.example": {"auth": auth.rstrip("=")}}}), holding({"b.example": {"username": "me", "password": "my:own"}}, ".dockercfg")]
    logins = from_secrets(forms)
    for image in ("a.example/x", "b.example/x"):
        (login,) = logins.of(parse(image))
        assert (login.username, login.password) == ("me", "my:own")


@pytest.mark.parametrize(
    "broken", [{"data": {".dockerconfigjson": "!!"}}, {"data": None}, {}, holding([]), holding({"auths": {"x": 3}}), holding({"auths": {"x": {"auth": "a"}}})]
)
def test_a_secret_that_holds_no_logins_is_left_out_and_told_of(broken: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    good = holding({"auths": {"a.example": {"username": "me", "password": "x"}}})
    with caplog.at_level(logging.WARNING):
        assert len(from_secrets([broken, good]).entries) == 1
    assert "holds no logins" in caplog.text


def test_a_password_is_never_shown() -> None:
    assert "open sesame" not in repr(from_secrets([holding({"auths": {"a.example": {"username": "me", "password": "open sesame"}}})]))


def test_the_service_accounts_secrets_count_where_the_pod_names_none() -> None:
    account = {"imagePullSecrets": [{"name": "theirs"}, {}]}
    assert names(["mine"], account) == ("mine",)
    assert names([], account) == ("theirs",)
    assert names([], {}) == names([], None) == ()
