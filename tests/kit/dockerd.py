"""A Docker engine of a test's own, to be killed and restarted: a second dockerd with its own data, socket and containerd."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import docker

from kit.process import Process, free_port, wait_ready


class Dockerd:
    """Runs from the start, on a bridge of its own: with none, or the default one, it would take away the other engine's. No rule of the firewall is touched.

    With `tls` it also listens on `tcp`, to those whom a certificate in `certificates` names.
    """

    def __init__(self, tls: bool = False) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="dray-dockerd-"))
        self.host = f"unix://{self.dir}/docker.sock"
        self.tcp = f"tcp://127.0.0.1:{free_port()}"
        self.certificates = self.dir / "certificates"
        self._bridge = f"dray{free_port()}"
        _ip("link", "add", "name", self._bridge, "type", "bridge")
        _ip("addr", "add", "172.28.77.1/24", "dev", self._bridge)
        self._listening = ["-H", self.tcp, "--tlsverify", *_certified(self.certificates)] if tls else []
        self.start()

    def start(self) -> None:
        places = ["--data-root", f"{self.dir}/data", "--exec-root", f"{self.dir}/exec", "--pidfile", f"{self.dir}/pid"]
        self.process = Process(
            ["dockerd", "-H", self.host, *self._listening, *places, f"--bridge={self._bridge}", "--iptables=false", "--ip6tables=false"],
            self.dir / "output.log",
        )
        wait_ready(self.process, self._answers, 60, "dockerd")
        self.engine = docker.DockerClient(base_url=self.host, timeout=60)

    def kill(self) -> None:
        """SIGKILL, which takes its containerd along; the containers go on until it is back."""
        self.engine.close()
        self.process.kill()
        (self.dir / "pid").unlink(missing_ok=True)
        (self.dir / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)  # a zombie's pid would pass for a running one

    def stop(self) -> None:
        """SIGTERM: it stops its containers first."""
        self.engine.close()
        self.process.stop(60)

    def remove(self) -> None:
        self.stop()
        _ip("link", "delete", self._bridge)
        for mount in reversed([line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1].startswith(str(self.dir))]):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(f"{self.dir}/docker.sock")
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(64)
            except OSError:
                return False


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


def _certified(folder: Path) -> list[str]:
    """An authority, a server's and a client's certificate, named as the docker command wants them; the server's options."""
    folder.mkdir()

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for name, use in (("server", "serverAuth\nsubjectAltName=IP:127.0.0.1"), ("client", "clientAuth")):
        (folder / "extensions").write_text(f"extendedKeyUsage={use}\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", "request.pem")
        signing = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "extensions"]
        openssl("x509", "-req", "-in", "request.pem", *signing, "-out", f"{name}-cert.pem")
    (folder / "client-key.pem").rename(folder / "key.pem")
    (folder / "client-cert.pem").rename(folder / "cert.pem")
    return [f"--tlscacert={folder}/ca.pem", f"--tlscert={folder}/server-cert.pem", f"--tlskey={folder}/server-key.pem"]
