"""A Docker engine of a test's own, to be killed and restarted: a second dockerd with its own data, socket and containerd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import docker
from docker.errors import DockerException

from kit.process import Process, wait_ready


class Dockerd:
    """Runs from the start. Without a bridge: its containers have loopback alone, and no rule of the machine's firewall is touched."""

    def __init__(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="dray-dockerd-"))
        self.host = f"unix://{self.dir}/docker.sock"
        self.start()

    def start(self) -> None:
        places = ["--data-root", f"{self.dir}/data", "--exec-root", f"{self.dir}/exec", "--pidfile", f"{self.dir}/pid"]
        self.process = Process(["dockerd", "-H", self.host, *places, "--bridge=none", "--iptables=false", "--ip6tables=false"], self.dir / "output.log")
        wait_ready(self.process, self._answers, 60, "dockerd")
        self.engine = docker.DockerClient(base_url=self.host, timeout=60)

    def kill(self) -> None:
        """SIGKILL to dockerd alone; its containerd and the containers go on until it is back."""
        self.engine.close()
        self.process.kill()
        (self.dir / "pid").unlink(missing_ok=True)

    def remove(self) -> None:
        if self.process.code is None:
            for container in self.engine.containers.list(all=True):
                container.remove(force=True, v=True)
            self.engine.close()
            self.process.signal(signal.SIGTERM)
            self.process.stop(60)
        self._stop_containerd()
        for mount in reversed([line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1].startswith(str(self.dir))]):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def _stop_containerd(self) -> None:
        """The one that a killed dockerd left to its successor; normally gone with it."""
        pid_file = self.dir / "exec" / "containerd" / "containerd.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text())
        for _ in range(50):
            if not Path(f"/proc/{pid}").exists():
                return
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            client = docker.DockerClient(base_url=self.host, timeout=5)
            try:
                return bool(client.ping())
            finally:
                client.close()
        except DockerException:
            return False
