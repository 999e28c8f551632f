"""Makes a DrayJob as `kubectl apply` would, waits for its end, says how that was, and removes it."""

import os
import sys
import time

from dray.cluster import cluster

api = cluster()
path = f"/apis/dray.io/v1alpha1/namespaces/{os.environ['NAMESPACE']}/drayjobs"
name, image = f"{os.environ['RELEASE']}-test", os.environ["IMAGE"]
steps = [{"source": image, "command": ["echo", "hello"]}, {"source": image, "command": ["grep", "-x", "hello"]}]
made = api.create(path, {"apiVersion": "dray.io/v1alpha1", "kind": "DrayJob", "metadata": {"generateName": f"{name}-"}, "spec": {"steps": steps}})
path += f"/{made['metadata']['name']}"
status: dict[str, str] = {}
try:
    while status.get("status") not in ("complete", "error", "invalid"):
        time.sleep(1)
        status = api.get(path).get("status", {})
finally:
    api.delete(path, {})
print(status)
sys.exit(status["status"] != "complete")
