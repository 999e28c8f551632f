"""A token server for the real registry: it trades a login for a signed token, as a registry's own would."""

from __future__ import annotations

import base64
import json
import re
import secrets
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from kit.answering import Answering, Asked, Told

ISSUER, SERVICE = "tokens", "dray"


class Tokens:
    """Runs from the start, at `http://ADDRESS/token`. The registry trusts what is signed by the certificate in `folder`."""

    def __init__(self, folder: Path, login: str) -> None:
        """`login`: name:password; who sends another, or none, gets a token that opens nothing."""
        self._key, self._login = folder / "key.pem", login
        der = ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())
        self._head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        self._server = Answering()
        self._server.answers["/token"] = self._answer
        self.address = self._server.address

    def close(self) -> None:
        self._server.close()

    def _answer(self, asked: Asked) -> Told:
        basic = f"Basic {base64.b64encode(self._login.encode()).decode()}"
        scopes = parse_qs(asked.query).get("scope", []) if asked.headers.get("authorization") == basic else []
        access = [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in map(_parts, scopes)]
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": "", "iat": now, "nbf": now - 5, "exp": now + 300, "jti": secrets.token_hex(8), "access": access}
        return Told(body=json.dumps({"token": self._signed(claims), "expires_in": 300}).encode())

    def _signed(self, claims: dict[str, Any]) -> str:
        content = f"{_packed(json.dumps(self._head).encode())}.{_packed(json.dumps(claims).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        return f"{content}.{_packed(subprocess.run(command, input=content.encode(), capture_output=True, check=True).stdout)}"


def _parts(scope: str) -> tuple[str, str, str]:
    """`repository:NAME:ACTIONS`."""
    found = re.fullmatch(r"([a-z]+):(.+):([a-z,*]+)", scope)
    assert found, scope
    return found[1], found[2], found[3]


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
