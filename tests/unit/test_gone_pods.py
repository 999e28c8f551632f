"""What the state machine does where a pod is being made, takes no further attempt, or goes away with its volume. No cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dray.action import Close, Finish, Launch, Open, Renew, Retire, Save, Seed
from dray.backends.kubernetes import faults
from dray.backends.kubernetes.pods import Container, seen
from dray.clock import SECOND
from dray.pod import Box, Fault, Image, Mark, Pod, Shape, Stage, Status
from dray.reason import Reason
from dray.record import Job, Phase, StepState, new_job
from dray.spec import parse
from dray.state import MAX_REMADE, Rules, decide, inputless

RULES = Rules(2, 10 * SECOND, "cluster")
LOST = Fault(Reason.LOST, "it was deleted")
WELL = Status(0, 0, 0, "", 0, 1, 2, 10, 20)


def job_of(*retries: int, **changes: Any) -> Job:
    """A running job with a step for each count of retries."""
    spec = parse({"steps": [{"source": "a", "retries": count} for count in retries]})
    return replace(new_job("J", spec, 1), phase=Phase.RUNNING, pod="pod", engine="cluster", started_at=1, **changes)


def began(*steps: int) -> Pod:
    """A pod that is gone, in which the first attempts of these may have begun."""
    return Pod(Shape.ABSENT, {(step, 1): Box(Stage.ABSENT) for step in steps}, gone=LOST)


def saved(job: Job, pod: Pod) -> Job:
    action = decide(job, pod, 100, RULES)
    assert isinstance(action, Save), action
    return action.job


@pytest.mark.parametrize("shape", [Shape.OPENING, Shape.GOING])
def test_a_pod_that_is_being_made_or_taken_away_is_waited_for(shape: Shape) -> None:
    assert decide(job_of(1), Pod(shape), 100, RULES) is None


@pytest.mark.parametrize("shape", [Shape.OPENING, Shape.GOING])
def test_a_job_cancelled_while_its_pod_is_being_made_or_taken_away_ends_at_once(shape: Shape) -> None:
    stopped = job_of(0, stop=Reason.CANCELLED, stopped_at=2)
    action = decide(stopped, Pod(shape), 100, RULES)
    assert isinstance(action, Finish)
    assert action.job.reason is Reason.CANCELLED


def test_a_pod_gone_before_anything_began_is_made_again_but_not_for_ever() -> None:
    again = saved(job_of(0), began())
    assert (again.pod, again.pods, again.steps[0].attempt) == (None, 1, 1)
    assert decide(again, Pod(), 100, RULES) == Open()
    assert saved(job_of(0, pods=MAX_REMADE), began()).reason is Reason.LOST


def test_an_attempt_gone_with_its_pod_is_lost_and_follows_its_retries() -> None:
    assert saved(job_of(0), began(0)).reason is Reason.LOST
    again = saved(job_of(1, 0), began(0, 1))
    assert (again.pod, again.pods, again.reason) == (None, 1, None)
    assert [(state.attempt, [past.reason for past in state.past]) for state in again.steps] == [(2, [Reason.LOST]), (2, [Reason.LOST])]
    assert again.steps[0].retry_at == 100 + SECOND


def test_a_pod_that_did_not_come_up_is_an_attempt_that_failed() -> None:
    pod = Pod(Shape.ABSENT, gone=Fault(Reason.UNSCHEDULABLE, "no node"))
    assert saved(job_of(0), pod).reason is Reason.UNSCHEDULABLE
    assert saved(job_of(1), pod).steps[0].attempt == 2


def test_what_is_left_of_a_pod_that_did_not_come_up_is_removed_when_the_job_has_ended() -> None:
    pod = Pod(Shape.ABSENT, gone=Fault(Reason.UNSCHEDULABLE, "no node"))
    over = replace(job_of(0), phase=Phase.ERROR, reason=Reason.UNSCHEDULABLE)
    assert decide(over, pod, 100, RULES) == Close()
    assert decide(over, Pod(), 100, RULES) == Retire()


def test_a_job_that_goes_on_in_a_new_pod_needs_the_output_kept_of_the_step_before() -> None:
    done = StepState(Phase.COMPLETE, exit_code=0, bytes_out=2)
    job = job_of(0, 0, pods=1).with_step(0, done)
    assert decide(job, Pod(Shape.OPEN), 100, RULES) == Seed(0)
    assert inputless(job, 100).reason is Reason.LOST


def test_a_complete_job_whose_pod_went_ends_for_what_took_it() -> None:
    job = job_of(0).with_step(0, StepState(Phase.COMPLETE, exit_code=0, bytes_out=2))
    action = decide(job, began(0), 100, RULES)
    assert isinstance(action, Finish)
    assert action.job.phase is Phase.COMPLETE  # until its output turns out to be kept nowhere


def test_a_further_attempt_of_a_box_that_ended_takes_a_new_pod() -> None:
    killed = Box(Stage.ENDED, 137, oom=True, claimed_at=5)
    pod = Pod(Shape.OPEN, {(0, 1): killed}, {(0, 1): Image.READY}, spent=frozenset({0}))
    again = saved(job_of(1), pod)
    assert [past.reason for past in again.steps[0].past] == [Reason.OUT_OF_MEMORY]
    tidied = replace(pod, boxes={(0, 1): replace(killed, stage=Stage.ABSENT)})
    assert decide(again, tidied, 100, RULES) is None
    assert decide(again, tidied, 100 + SECOND, RULES) == Renew(None)


def test_a_box_that_goes_on_gets_its_next_attempt_where_it_is() -> None:
    failed = Box(Stage.ENDED, 3, claimed_at=5, status=replace(WELL, exit=3, code=3))
    pod = Pod(Shape.OPEN, {(0, 1): failed}, {(0, 1): Image.READY, (0, 2): Image.READY}, marks=frozenset[Mark]())
    again = saved(job_of(1), pod)
    assert decide(again, pod, 100 + SECOND, RULES) == Launch(0)


# --- what the cluster's words mean


def body(status: dict[str, Any]) -> dict[str, Any]:
    metadata = {"uid": "u", "name": "p", "namespace": "n", "labels": {"dray.job": "J"}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"containers": [{"name": "keeper", "image": "a"}]}, "status": status}


DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "low on memory"}]


@pytest.mark.parametrize(
    ("status", "deleted", "reason"),
    [
        ({"phase": "Running"}, False, None),
        ({"phase": "Running"}, True, Reason.LOST),
        ({"phase": "Failed", "reason": "Evicted", "conditions": DISRUPTED}, False, Reason.EVICTED),
        ({"phase": "Failed", "reason": "Evicted", "message": "ephemeral local storage"}, False, Reason.DISK_FULL),
        ({"phase": "Running", "conditions": DISRUPTED}, False, None),
        ({"phase": "Running", "conditions": DISRUPTED}, True, Reason.EVICTED),
        ({"phase": "Succeeded"}, False, Reason.LOST),
    ],
)
def test_why_a_pod_is_gone(status: dict[str, Any], deleted: bool, reason: Reason | None) -> None:
    found = faults.of_pod(replace(seen(body(status)), deleted=deleted))
    assert (found.reason if found else None) is reason


@pytest.mark.parametrize(
    ("container", "refers", "reason"),
    [
        (Container(reason="ContainerCreating"), True, None),
        (Container(reason="ErrImagePull"), False, Reason.IMAGE_PULL_FAILED),
        (Container(reason="InvalidImageName"), False, Reason.IMAGE_NOT_FOUND),
        (Container(reason="CreateContainerConfigError"), True, Reason.SECRET_NOT_FOUND),
        (Container(reason="CreateContainerConfigError"), False, Reason.START_FAILED),
        (Container("terminated", "StartError", code=128), False, Reason.START_FAILED),
        (Container("terminated", "Error", code=1), False, None),
        (Container("running"), False, None),
    ],
)
def test_why_a_container_cannot_run(container: Container, refers: bool, reason: Reason | None) -> None:
    found = faults.of_container(container, "a", refers)
    assert (found.reason if found else None) is reason


UNSTARTED = Container("terminated", "StartError", code=128)


@pytest.mark.parametrize(
    ("containers", "gone", "suspected"),
    [
        ({"keeper": Container(reason="ErrImagePull"), "step-0": UNSTARTED}, True, True),
        ({"keeper": Container(reason="ErrImagePull"), "step-0": Container()}, False, False),
        ({"keeper": Container("running"), "step-0": UNSTARTED}, False, True),
        ({"keeper": Container("running"), "step-0": Container("terminated", "Error", code=1)}, False, False),
        ({"install": Container("terminated", code=0), "keeper": Container("running"), "step-0": UNSTARTED}, False, False),
    ],
)
def test_whether_a_pod_lacks_the_runner(containers: dict[str, Container], gone: bool, suspected: bool) -> None:
    pod = replace(seen(body({"phase": "Running"})), containers=containers)
    assert (faults.of_pod(pod) is not None, faults.without_runner(pod) is not None) == (gone, suspected)


def test_a_pod_on_its_way_up_has_changed_when_the_cluster_last_said_so() -> None:
    waits = {"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-01-01T00:00:10Z"}
    placed = waits | {"status": "True", "lastTransitionTime": "2026-01-01T00:05:00Z"}
    sandbox = {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": None}
    assert [seen(body({"conditions": conditions})).changed_at for conditions in ([], [waits], [placed, sandbox])] == [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:10Z",
        "2026-01-01T00:05:00Z",
    ]
