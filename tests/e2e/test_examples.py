"""Every job in examples/, as its file stands, on the images that examples/images.py makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

import images
from kit.serving import Served

EXAMPLES = Path(__file__).parents[2] / "examples"
CUSTOMERS = ["Jones", "Smith", "Adams", "Baker", "Jones", "Clark", "Smith", "Davis", "Evans", "Adams", "Frank", "Jones"]


@dataclass(frozen=True)
class Ends:
    """How a job ends. `log` by step and stream: lines of one step's two streams may come in either order."""

    output: str
    log: list[list[str]]
    status: str = "complete"
    steps: int = 2


FLEET = "2 nodes of t2.small in us-west-2a for AWS - Fleet-CoreOS"
ENDS = {
    "customers": Ends("8\n", [CUSTOMERS, sorted(CUSTOMERS), sorted(set(CUSTOMERS)), ["8"]], steps=4),
    "aws-fleet": Ends(
        "10.0.0.1 agent installed\n10.0.0.2 agent installed\n",
        [
            [f"create: {FLEET}", "10.0.0.1", "10.0.0.2"],
            [f"agent: {FLEET}", "10.0.0.1 agent", "10.0.0.2 agent"],
            [f"install: {FLEET}", "10.0.0.1 agent installed", "10.0.0.2 agent installed"],
        ],
        steps=3,
    ),
    "stderr": Ends("THIS IS PASSED ON\n", [["this is only logged", "this is passed on"], ["THIS IS PASSED ON"]]),
    "file-output": Ends("THIS IS\nPASSED ON\n", [["this is only logged"], ["THIS IS", "PASSED ON"]]),
    "delimiter": Ends("THIS IS PASSED ON\n", [["starting", "-----BEGIN-----", "this is passed on", "-----END-----", "done"], ["THIS IS PASSED ON"]]),
    "failing": Ends("", [CUSTOMERS, ["about to fail"]], status="error", steps=1),
    "careful": Ends("12\n", [["the server is busy"], CUSTOMERS, ["12"], ["the job is complete"]], steps=3),
}
WORDS = ("word-job", "demo-job")


@pytest.fixture(scope="module", autouse=True)
def example_images(engine: docker.DockerClient) -> None:
    images.ensure(engine)


def test_every_example_is_tested() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.json")} == {*ENDS, *WORDS}


@pytest.mark.parametrize("name", ENDS)
def test_an_example_ends_as_it_should(dray: Served, name: str) -> None:
    ends, job_id = ENDS[name], dray.post((EXAMPLES / f"{name}.json").read_bytes())
    record, log = dray.wait(job_id), dray.log(job_id)
    assert (record["status"], record["stepsCompleted"]) == (ends.status, ends.steps)
    for lines in ends.log:
        assert sorted(log[: len(lines)]) == sorted(lines)
        del log[: len(lines)]
    assert log == []
    if ends.status == "complete":
        assert dray.output(job_id).decode() == ends.output


@pytest.mark.parametrize("name", WORDS)
def test_ten_words_come_out_in_capitals_and_backwards(dray: Served, name: str) -> None:
    job_id = dray.post((EXAMPLES / f"{name}.json").read_bytes())
    record, log = dray.wait(job_id), dray.log(job_id)
    assert (record["status"], record["stepsCompleted"]) == ("complete", 3)
    words, capitals, backwards = log[:10], log[10:20], log[20:]
    assert len(words) == 10
    assert all(word.isalpha() and word.islower() for word in words)
    assert capitals == [word.upper() for word in words]
    assert backwards == [word.upper()[::-1] for word in words]
    assert dray.output(job_id).decode().splitlines() == backwards
