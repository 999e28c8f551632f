"""Builds the native runner and puts it into the wheel, which is then for this architecture alone. Called by hatchling."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RUNNER = Path("operator/dray/runner")


class BuildHook(BuildHookInterface[Any]):
    """An editable install is left alone: there `make setup` builds the runner in place."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for tool in ("make", "cc"):
            if shutil.which(tool) is None:
                raise RuntimeError(f"dray's runner is a C program: {tool!r} is needed to build it (Debian: apt install gcc libc6-dev make)")
        subprocess.run(["make", "-C", str(Path(self.root) / RUNNER)], check=True)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
        build_data["force_include"][str(RUNNER / "bin" / "dray-runner")] = "dray/runner/bin/dray-runner"
