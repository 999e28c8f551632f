"""A real image registry on this machine: Debian's docker-registry. The engine speaks plain HTTP to 127.0.0.0/8."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import docker
import httpx
from docker.errors import ImageNotFound

from kit.process import Process, free_port, wait_ready
from kit.tokens import ISSUER, SERVICE, Tokens

USER, PASSWORD = "dray", "open-sesame"
_HTPASSWD = f"{USER}:$2b$05$NRztrkKu6G2VpfHyApQwa.OeaVqRQ1gR/XvkRFBQ2RVH95KW9Foja\n"
_CONFIG = """\
version: 0.1
log: {{accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {dir}/images}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"{tls}}}
"""
_TLS = ", tls: {{certificate: {dir}/cert.pem, key: {dir}/key.pem}}"
_TOKENS = "auth: {{{{token: {{{{realm: 'http://{realm}/token', service: {service}, issuer: {issuer}, rootcertbundle: {{dir}}/cert.pem}}}}}}}}\n"
_LOGIN = "auth: {{htpasswd: {{realm: dray, path: {dir}/htpasswd}}}}\n"


class Registry:
    """Runs from the start. With `login`, only USER with PASSWORD may pull and push, with `tokens` by way of a token server.
    With `tls`, its certificate is `certificate`.
    """

    def __init__(self, engine: docker.DockerClient, login: bool = False, tls: bool = False, tokens: bool = False) -> None:
        self.engine, self.login, self.tls = engine, login or tokens, tls
        self.dir = Path(tempfile.mkdtemp(prefix="dray-registry-"))
        self.address = f"127.0.0.1:{free_port()}"
        (self.dir / "htpasswd").write_text(_HTPASSWD)
        self.certificate = self.dir / "cert.pem"
        if tls or tokens:
            self._certify()
        self._tokens = Tokens(self.dir, f"{USER}:{PASSWORD}") if tokens else None
        guarded = _TOKENS.format(realm=self._tokens.address, service=SERVICE, issuer=ISSUER) if self._tokens else _LOGIN * login
        listening = _TLS.format(dir=self.dir) if tls else ""
        (self.dir / "config.yml").write_text((_CONFIG + guarded).format(dir=self.dir, address=self.address, tls=listening))
        self._pushed: set[str] = set()
        self.start()

    def start(self) -> None:
        self.process = Process(["docker-registry", "serve", str(self.dir / "config.yml")], self.dir / "output.log")
        wait_ready(self.process, self._answers, 30, "docker-registry")

    def push(self, image: str, name: str, tag: str = "latest") -> str:
        """The reference to pull it by. The engine itself holds it no more under that name."""
        repository = f"{self.address}/{name}"
        self.engine.images.get(image).tag(repository, tag)
        login = {"auth_config": {"username": USER, "password": PASSWORD}} if self.login else {}
        for told in self.engine.images.push(repository, tag, stream=True, decode=True, **login):
            assert "error" not in told, told
        self.forget(f"{repository}:{tag}")
        return f"{repository}:{tag}"

    def forget(self, reference: str) -> None:
        """The engine drops what it holds under that name; the registry keeps it."""
        self._pushed.add(reference)
        with suppress(ImageNotFound):
            self.engine.images.remove(reference, force=True)

    def tags(self, name: str) -> list[str]:
        found: list[str] = self._get(f"{name}/tags/list").raise_for_status().json()["tags"]
        return found

    def kill(self) -> None:
        self.process.kill()

    def remove(self) -> None:
        self.process.kill()
        if self._tokens is not None:
            self._tokens.close()
        for reference in self._pushed:
            self.forget(reference)
        shutil.rmtree(self.dir)

    def _certify(self) -> None:
        names = ["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"]
        made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key.pem", "-out", "cert.pem"]
        subprocess.run(["openssl", "req", "-x509", *made, *names], cwd=self.dir, check=True, capture_output=True)

    def _answers(self) -> bool:
        try:
            return self._get("").status_code in (200, 401)
        except httpx.TransportError:
            return False

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(f"{'https' if self.tls else 'http'}://{self.address}/v2/{path}", verify=False)
