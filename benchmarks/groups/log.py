"""How fast a log is stored, and read far from its start."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench, Found, seconds, settled, turns
from benchmarks.rows import DRAY, FAR, NEAR, XADD
from benchmarks.server import Server
from kit.redis import RedisServer
from kit.serving import Served

LINES, QUICK_LINES = 1_000_000, 20_000
READS = 50  # in one turn
LIKE_EMBEDDED = ("--appendonly", "yes", "--appendfsync", "always")  # the options of the Redis that `dray serve` starts
WITHIN = 300  # seconds


def measure(bench: Bench) -> Found:
    found, count = Found(), bench.sized(LINES, QUICK_LINES)
    lines = [f"line {number} of what a program of many words has to say" for number in range(count)]
    image = bench.image("cat", "/lines", files={"/lines": "\n".join(lines) + "\n"})
    with bench.served(DRAY_LOG_CAP="1GiB") as served:
        server = Server(served.url)
        found.rows["log-store"], job_id = _stored(bench, served, server, image, lines)
        found.rows["log-read"] = _read(bench, server, job_id, lines)
        server.close()
    return found


def _stored(bench: Bench, served: Served, server: Server, image: str, lines: list[str]) -> tuple[dict[str, list[float]], str]:
    """Lines per second, and the id of the last job. Ours: from POST to complete, the start of job and container included."""
    jobs: list[str] = []
    commands = bench.dir / "xadd"
    commands.write_bytes(b"".join(_xadd(line.encode()) for line in lines))
    redis = RedisServer(*LIKE_EMBEDDED)

    def ours() -> float:
        took = seconds(lambda: jobs.append(server.run([image], WITHIN)))
        settled(served)
        return len(lines) / took

    def plain() -> float:
        redis.flush()
        return len(lines) / seconds(partial(_piped, redis, commands))

    try:
        return turns(bench.rounds, {DRAY: ours, XADD: plain}), jobs[-1]
    finally:
        redis.remove()
        commands.unlink()


def _xadd(line: bytes) -> bytes:
    words = (b"XADD", b"log", b"*", b"line", line)
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _piped(redis: RedisServer, commands: Path) -> None:
    """Commands as they go over the wire, as fast as Redis takes them: no client is faster."""
    with commands.open("rb") as file:
        subprocess.run(["redis-cli", "-s", str(redis.socket), "--pipe"], stdin=file, check=True, capture_output=True)


def _read(bench: Bench, server: Server, job_id: str, lines: list[str]) -> dict[str, list[float]]:
    def reads(index: int) -> float:
        """Milliseconds, the median of READS."""
        path = f"/jobs/{job_id}/log?index={index}&limit=10"
        assert server.get(path)["lines"] == lines[index : index + 10]
        return median(seconds(partial(server.get, path)) for _ in range(READS)) * 1000

    return turns(bench.rounds, {FAR: partial(reads, len(lines) - len(lines) // 1000), NEAR: partial(reads, 0)})
