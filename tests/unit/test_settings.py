"""Settings: every variable, what wins over what, and that a value that cannot be used is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dray.errors import BadSetting
from dray.fields import Limits
from dray.settings import VARIABLES, Drain, Settings, from_environment, log_level

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("REDIS_URL", "redis://redis:6379/3", "redis_url", "redis://redis:6379/3"),
        ("REDIS_URL", "rediss://user:secret@redis", "redis_url", "rediss://user:secret@redis"),
        ("REDIS_URL", "unix:///run/redis.sock", "redis_url", "unix:///run/redis.sock"),
        ("REDIS_PORT", "tcp://172.17.0.5:6379", "redis_url", "redis://172.17.0.5:6379"),
        ("REDIS_PORT", "tcp://[::1]:6379", "redis_url", "redis://[::1]:6379"),
        ("DRAY_DATA_DIR", "/srv/dray", "data_dir", Path("/srv/dray")),
        ("DRAY_OUTPUTS", "s3://bucket/x", "outputs", "s3://bucket/x"),
        ("DRAY_TOKEN", TOKEN, "token", TOKEN),
        ("DRAY_HOSTS", "a.example, B.example ,", "allowed_hosts", ("a.example", "b.example")),
        ("DRAY_JOBS", "12", "jobs", 12),
        ("DRAY_AHEAD", "0", "ahead", 0),
        ("DRAY_LOG_CAP", "1048576", "log_cap", 2**20),
        ("DRAY_DATA_CAP", "2GiB", "data_cap", 2 * 2**30),
        ("DRAY_DATA_CAP", "0", "data_cap", 0),
        ("DRAY_INPUT_CAP", "3TiB", "input_cap", 3 * 2**40),
        ("DRAY_DISK_FLOOR", "512k", "disk_floor", 512 * 1024),
        ("DRAY_DISK_FLOOR", "1 TB", "disk_floor", 2**40),
    ],
)
def test_a_variable_sets_its_field(variable: str, text: str, field: str, value: object) -> None:
    found = from_environment({variable: text})
    assert getattr(found, field) == value
    assert dataclasses.replace(found, **{field: getattr(from_environment({}), field)}) == from_environment({})


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("REDIS_URL", "localhost:6379", "must be redis://"),
        ("REDIS_URL", "http://redis", "must be redis://"),
        ("REDIS_PORT", "6379", "must be tcp://host:port"),
        ("REDIS_PORT", "tcp://redis", "must be tcp://host:port"),
        ("REDIS_PORT", "udp://redis:1", "must be tcp://host:port"),
        ("DRAY_TOKEN", "short", "at least 16"),
        ("DRAY_TOKEN", "with a blank in it", "at least 16"),
        ("DRAY_TOKEN", "0123456789abcdéf", "at least 16"),
        ("DRAY_TOKEN", "0123456789abcdef\n", "at least 16"),
        ("DRAY_JOBS", "0", "at least 1"),
        ("DRAY_JOBS", "-1", "whole number"),
        ("DRAY_JOBS", "1.5", "whole number"),
        ("DRAY_JOBS", "٣", "whole number"),
        ("DRAY_JOBS", "1000000000000", "whole number"),
        ("DRAY_AHEAD", "two", "whole number"),
        ("DRAY_LOG_CAP", "big", "must be a size such as"),
        ("DRAY_LOG_CAP", "-1", "must be a size such as"),
        ("DRAY_LOG_CAP", "1.5MiB", "must be a size such as"),
        ("DRAY_LOG_CAP", "1PiB", "must be a size such as"),
        ("DRAY_GRACE", "soon", "must be a time such as"),
        ("DRAY_GRACE", "-1", "must be a time such as"),
        ("DRAY_LEASE", "0.5", "from 1s to 1h"),
        ("DRAY_LEASE", "2h", "from 1s to 1h"),
        ("DRAY_DRAIN", "now", "handover or finish"),
        ("DRAY_LIMITS", "cpu", "must be such as cpu=500m"),
        ("DRAY_LIMITS", "disk=1", "must be such as cpu=500m"),
        ("DRAY_LIMITS", "cpu=1,cpu=2", "must be such as cpu=500m"),
        ("DRAY_LIMITS", "cpu=fast", "cpu must be a number of cores"),
        ("DRAY_LIMITS_MAX", "memory=1Mi", "memory must be from 6Mi"),
        ("DRAY_LIMITS_MAX", "pids=0", "pids must be at least 1"),
        ("DRAY_HOST_PATHS", "srv", "absolute paths"),
        ("DRAY_HOST_PATHS", "/srv/../etc", "absolute paths"),
        ("DRAY_METRICS_PORT", "65536", "must be a port"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(variable: str, text: str, says: str) -> None:
    with pytest.raises(BadSetting, match=variable) as caught:
        from_environment({variable: text})
    assert says in str(caught.value)


def test_a_wrong_token_is_not_repeated() -> None:
    with pytest.raises(BadSetting) as caught:
        from_environment({"DRAY_TOKEN": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("variable", ["REDIS_URL", "REDIS_PORT", "DRAY_DATA_DIR", "DRAY_TOKEN", "DRAY_JOBS", "DRAY_LOG_CAP"])
def test_an_empty_variable_counts_as_unset(variable: str) -> None:
    assert from_environment({variable: ""}) == from_environment({})


def test_the_command_line_wins() -> None:
    assert from_environment({"DRAY_DATA_DIR": "/a"}, data_dir=Path("/b"), port=None).data_dir == Path("/b")
    assert from_environment({"DRAY_DATA_DIR": "/a"}, data_dir=None).data_dir == Path("/a")
    assert from_environment({}, port=0).port == 0


def test_redis_url_wins_over_docker_links() -> None:
    assert from_environment({"REDIS_URL": "redis://a", "REDIS_PORT": "tcp://b:1"}).redis_url == "redis://a"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert from_environment({}, host=host).loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "dray.example", "", "127.evil.example"])
def test_beyond_loopback_a_token_is_needed_or_the_word_that_none_is(host: str) -> None:
    with pytest.raises(BadSetting, match="DRAY_TOKEN"):
        from_environment({}, host=host)
    assert not from_environment({"DRAY_TOKEN": TOKEN}, host=host).loopback
    assert not from_environment({}, host=host, no_auth=True).loopback


def test_outputs_are_in_the_data_directory_unless_said_otherwise(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).outputs_url == f"file://{tmp_path}/outputs"
    assert Settings(data_dir=Path("relative")).outputs_url == f"file://{Path.cwd()}/relative/outputs"
    assert Settings(outputs="memory://x").outputs_url == "memory://x"


@pytest.mark.parametrize(("text", "level"), [("", "info"), ("debug", "debug"), ("DEBUG", "debug"), ("panic", "panic"), ("warn", "warn")])
def test_a_log_level_is_taken(text: str, level: str) -> None:
    assert log_level({"LOG_LEVEL": text}) == (level, None)


def test_an_unknown_log_level_is_reported_and_info_used() -> None:
    level, complaint = log_level({"LOG_LEVEL": "warning"})
    assert level == "info"
    assert complaint is not None
    assert "'warning'" in complaint
    assert "panic, fatal, error, warn, info, debug" in complaint


@pytest.mark.parametrize("given", [{"namespaces": ("a",)}, {"mirror_jobs": "a"}])
def test_what_says_more_of_an_option_that_is_missing_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(BadSetting, match="--kubernetes"):
        from_environment({}, **given)
    assert from_environment({}, kubernetes=True, **given).kubernetes


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("DRAY_GRACE", "0.5", "grace", 0.5),
        ("DRAY_KEEP_TIME", "30d", "keep_time", 30 * 86_400),
        ("DRAY_TAKEOVER", "0", "takeover", 0),
        ("DRAY_LEASE", "1m", "lease", 60),
        ("DRAY_DRAIN", "finish", "drain", Drain.FINISH),
        ("DRAY_LIMITS", "cpu=1.5, memory=64Mi,pids=9", "limits", Limits(1500, 64 * 2**20, 9)),
        ("DRAY_LIMITS_MAX", "memory=1G", "limits_max", Limits(memory=10**9)),
        ("DRAY_HOST_PATHS", "/srv/a/, /b", "host_paths", ("/srv/a", "/b")),
        ("DRAY_IMAGES", "a/*, b:1 ,", "images", ("a/*", "b:1")),
        ("DRAY_KEEP_JOBS", "0", "keep_jobs", 0),
        ("DRAY_METRICS_PORT", "0", "metrics_port", 0),
    ],
)
def test_a_value_is_taken_as_it_is_meant(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(from_environment({variable: text}), name) == value


def test_every_variable_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert [variable for variable in VARIABLES if f"`{variable}`" not in page] == []
