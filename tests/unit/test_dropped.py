"""Which fields of a posted job the server did not take, told from its answer."""

from __future__ import annotations

from typing import Any

import pytest

from dray.client.dropped import dropped
from dray.spec import parse


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"retry": 3}, ["steps[0].retry"]),
        ({"cmd": ["ls"], "retries": 1}, ["steps[0].cmd"]),
        ({"resources": {"mem": "64Mi"}}, ["steps[0].resources.mem"]),
        ({"resources": {"mem": "64Mi", "cpu": 1}}, ["steps[0].resources.mem"]),
        ({"environment": [{"variable": "A", "value": "b", "valu": "c"}]}, ["steps[0].environment[0].valu"]),
    ],
)
def test_a_field_that_does_nothing_is_named(more: dict[str, Any], fields: list[str]) -> None:
    assert _dropped({"steps": [{"source": "a", **more}]}) == fields
    assert _dropped({"steps": [{"source": "a"}], "sauce": {"soy": 1}}) == ["sauce.soy"]


def test_what_is_empty_or_a_default_is_not_missed() -> None:
    step = {"source": "a", "name": "", "command": [], "output": "stdout", "refresh": False, "retries": 0, "timeout": 10, "workdir": None}
    assert not _dropped({"name": "", "steps": [step, {"source": "b", "resources": {"cpu": None}}], "labels": {"a": "", "b": "c"}, "network": "bridge"})


def _dropped(job: dict[str, Any]) -> list[str]:
    return list(dropped(job, parse(job).model_dump(mode="json", exclude_unset=True, exclude_none=True)))
