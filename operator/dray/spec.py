"""JobSpec: what a client may ask for. The one description behind HTTP, the record in Redis, the OpenAPI document and the custom resource.

Field names are Dray's JSON. Unknown fields are dropped and `null` counts as absent, as the original's decoder had it.
What each field may hold is in `fields.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.json_schema import SkipJsonSchema

from dray import fields
from dray.errors import FieldError, Invalid


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: object) -> object:
        if isinstance(given, Mapping):
            return {key: value for key, value in given.items() if value is not None}
        return given


class ClusterValue(_Part):
    """A key of a Secret or a ConfigMap in a Kubernetes namespace. `optional`: without it there is no such variable."""

    namespace: str
    kind: Literal["Secret", "ConfigMap"]
    name: str
    key: str
    optional: bool = False


_OF_A_CLIENT = "of a client"  # the context in which `parse` validates


class EnvVar(_Part):
    """One environment variable, with its `value` or the name of a `secret` that the operator holds.

    A value may be a secret too: it appears in no log line of Dray's own and in no error message. `cluster` is for jobs
    that come from the cluster itself: whoever may post a job may not read the cluster's secrets by it.
    """

    variable: fields.Variable
    value: fields.Value = ""
    secret: Annotated[fields.ShortName | None, Field(description="the name of a secret of the operator's; instead of a value")] = None
    cluster: SkipJsonSchema[ClusterValue | None] = None

    @model_validator(mode="before")
    @classmethod
    def _no_cluster_for_clients(cls, given: object, info: ValidationInfo) -> object:
        if info.context == _OF_A_CLIENT and isinstance(given, Mapping):
            return {key: value for key, value in given.items() if key != "cluster"}
        return given

    @property
    def named(self) -> bool:
        """Whether only a name of its value is given."""
        return self.secret is not None or self.cluster is not None

    @property
    def secretive(self) -> bool:
        """Whether its value is masked in the log."""
        return self.secret is not None or (self.cluster is not None and self.cluster.kind == "Secret")

    @model_validator(mode="after")
    def _one_of_them(self) -> EnvVar:
        given = self.model_fields_set & {"value", "secret", "cluster"}
        if len(given) != 1:
            raise ValueError("must have either a value or the name of a secret")
        if fields.size(self.variable) + fields.size(self.value) + 1 > fields.MAX_VARIABLE:
            raise ValueError(f"variable and value together must be at most {fields.MAX_VARIABLE} bytes")
        return self


Environment = Annotated[tuple[EnvVar, ...], Field(max_length=fields.MAX_ENVIRONMENT, strict=False)]


class Resources(_Part):
    """What a step may use at most. `cpu` in cores (0.5, '500m'), `memory` in bytes ('256Mi'), `pids`: its processes and threads."""

    cpu: fields.Cpu | None = None
    memory: fields.Memory | None = None
    pids: Annotated[int, Field(ge=1, le=fields.MAX_PIDS)] | None = None

    @property
    def limits(self) -> fields.Limits:
        cpu = None if self.cpu is None else fields.millis(self.cpu)
        memory = None if self.memory is None else fields.octets(self.memory)
        return fields.Limits(cpu, memory, self.pids)


class Mount(_Part):
    """A folder that outlives the job: a named volume, made at first use, or one of the host's that the operator's settings allow."""

    volume: fields.ShortName | None = None
    hostPath: fields.Path | None = None  # noqa: N815 (Dray's JSON)
    path: Annotated[fields.MountPath, Field(description="where the step finds it")]
    readOnly: bool = False  # noqa: N815

    @model_validator(mode="after")
    def _one_of_both(self) -> Mount:
        if (self.volume is None) == (self.hostPath is None):
            raise ValueError("must have either a volume or a hostPath")
        return self


class Step(_Part):
    """One step: an image, run with the step before's output as its stdin."""

    name: fields.Name = ""
    source: fields.Source
    command: Annotated[fields.Words, Field(description="runs instead of the image's entrypoint; then its default arguments do not count either")] = ()
    args: Annotated[fields.Words, Field(description="the command's arguments, instead of the image's")] = ()
    workdir: fields.Path | None = None
    environment: Environment = ()
    output: fields.Output = "stdout"
    beginDelimiter: fields.Delimiter = ""  # noqa: N815 (Dray's JSON)
    endDelimiter: fields.Delimiter = ""  # noqa: N815
    refresh: bool = False
    timeout: Annotated[fields.Seconds | None, Field(description="seconds that one attempt may take")] = None
    retries: Annotated[int, Field(ge=0, le=fields.MAX_RETRIES, description="further attempts after one that failed")] = 0
    resources: Resources = Resources()
    mounts: Annotated[tuple[Mount, ...], Field(max_length=fields.MAX_MOUNTS, strict=False)] = ()
    always: Annotated[bool, Field(description="runs after all others whatever happened, with the outcome in its environment and an empty stdin")] = False

    @model_validator(mode="before")
    @classmethod
    def _empty_output_is_stdout(cls, given: object) -> object:
        if isinstance(given, Mapping) and given.get("output") == "":
            return {key: value for key, value in given.items() if key != "output"}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Step:
        if self.command and not self.command[0]:
            raise ValueError("command must begin with the name of a program")
        if self.always and self.model_fields_set & {"output", "beginDelimiter", "endDelimiter"}:
            raise ValueError("an always step passes nothing on: it has no output and no delimiters")
        if len({mount.path for mount in self.mounts}) < len(self.mounts):
            raise ValueError("mounts must have different paths")
        return self

    @property
    def delimiters(self) -> tuple[str, str] | None:
        """Begin and end, where both are set and the output is a stream."""
        usable = self.beginDelimiter and self.endDelimiter and not self.output.startswith("/")
        return (self.beginDelimiter, self.endDelimiter) if usable else None

    def words(self, entrypoint: tuple[str, ...], default_args: tuple[str, ...]) -> tuple[str, ...]:
        """What is run, given what the image would run."""
        if self.command:
            return self.command + self.args
        return entrypoint + (self.args or default_args)


class Toleration(_Part):
    """Of a node's taint, as Kubernetes has it."""

    key: fields.LabelKey | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: fields.LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: Annotated[int, Field(ge=0)] | None = None  # noqa: N815 (Kubernetes' JSON)


NodeLabels = Annotated[dict[fields.LabelKey, fields.LabelValue], Field(max_length=fields.MAX_LABELS)]


class Kubernetes(_Part):
    """How the job's pod is made in a cluster. `root`: images may run as root, where the operator's settings allow that."""

    namespace: fields.DnsName | None = None
    serviceAccount: fields.DnsName | None = None  # noqa: N815 (Kubernetes' words)
    nodeSelector: NodeLabels = {}  # noqa: N815
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=fields.MAX_LABELS, strict=False)] = ()
    imagePullSecrets: Annotated[tuple[fields.DnsName, ...], Field(max_length=fields.MAX_LABELS, strict=False)] = ()  # noqa: N815
    labels: NodeLabels = {}
    root: bool = False


class JobSpec(_Part):
    """A job as a client posts it."""

    name: fields.Name = ""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=fields.MAX_STEPS, strict=False)]
    environment: Environment = ()
    timeout: Annotated[fields.Seconds | None, Field(description="seconds from the job's beginning until its steps are stopped")] = None
    labels: Annotated[dict[fields.LabelKey, fields.LabelValue], Field(max_length=fields.MAX_LABELS)] = {}
    kubernetes: Annotated[Kubernetes | None, Field(description="how the job's pod is made; only where jobs run on Kubernetes")] = None
    network: Annotated[fields.Network, Field(description="none, bridge, or the name of a network of the engine's")] = "bridge"
    backend: Annotated[Literal["docker", "kubernetes"] | None, Field(description="what it must run on; any operator may run it if absent")] = None
    ttlSecondsAfterFinished: Annotated[  # noqa: N815 (Kubernetes' word)
        Annotated[int, Field(ge=0, le=fields.MAX_TIME_TO_LIVE)] | None,
        Field(description="seconds after its end when the job is deleted, with its log and output"),
    ] = None

    @model_validator(mode="after")
    def _always_is_last(self) -> JobSpec:
        marks = [step.always for step in self.steps]
        if marks[0]:
            raise ValueError("steps must begin with one that is not marked always")
        if marks != sorted(marks):
            raise ValueError("steps marked always must come after all others")
        return self

    @property
    def pipe(self) -> int:
        """How many steps are not marked always: the ones that pass data on."""
        return sum(not step.always for step in self.steps)

    def environment_of(self, step: int) -> dict[str, EnvVar]:
        """The job's variables, then the step's: the later one of a name wins."""
        return {var.variable: var for var in (*self.environment, *self.steps[step].environment)}


RESERVED = "dray.io/"
"""How the keys of Dray's own labels begin."""
OBJECT_NAMESPACE = f"{RESERVED}namespace"
"""The label of a job that comes from a DrayJob: the object's namespace, which is the job's too."""


def parse(given: Any) -> JobSpec:
    """The spec in a client's decoded JSON value. Raises `Invalid`, naming each field."""
    spec = _validated(given, _OF_A_CLIENT)
    reserved = [FieldError(f"labels.{key}", f"must not begin with {RESERVED}") for key in spec.labels if key.startswith(RESERVED)]
    if reserved:
        raise Invalid(reserved)
    return spec


def parse_trusted(given: Any) -> JobSpec:
    """The same, of one who may use what the cluster keeps, and Dray's own labels: the DrayJob operator."""
    return _validated(given, None)


def _validated(given: Any, context: str | None) -> JobSpec:
    try:
        spec = JobSpec.model_validate(given, context=context)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise Invalid([FieldError(_path(fault["loc"]), _wording(fault)) for fault in faults if not _follows(fault, faults)]) from None
    unfit = [FieldError(field, message) for field, message in unsupported(spec, spec.backend)]
    if unfit:
        raise Invalid(unfit)
    return spec


def unsupported(spec: JobSpec, backend: str | None) -> Iterator[tuple[str, str]]:
    """(field, message) of what the job asks for and that backend cannot do; None: that is not known yet."""
    if backend == "docker" and spec.kubernetes is not None:
        yield "kubernetes", "the block kubernetes is for jobs on Kubernetes, and this one runs on Docker"
    if backend == "kubernetes":
        if spec.network != "bridge":
            yield "network", "a pod on Kubernetes has the cluster's network: only bridge, the default, can be said here"
        for number, step in enumerate(spec.steps):
            if step.resources.pids is not None:
                yield f"steps[{number}].resources.pids", "Kubernetes has no limit of processes for one container"


def _follows(fault: Any, faults: list[Any]) -> bool:
    """Whether a list is too short only because pydantic does not count its wrong entries."""
    where = fault["loc"]
    return fault["type"] == "too_short" and any(len(other["loc"]) > len(where) and other["loc"][: len(where)] == where for other in faults)


def _path(location: tuple[int | str, ...]) -> str:
    """`("steps", 0, "source")` → `steps[0].source`; `[key]` is pydantic's word for the key of a map, not its value."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]").lstrip(".")


_WORDING = {
    "missing": "is required",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "tuple_type": "must be an array",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a number",
    "literal_error": "must be {expected}",
    "string_unicode": "must be valid Unicode",
}


def _wording(fault: Any) -> str:
    context = fault.get("ctx") or {}
    if fault["type"] == "value_error":
        return str(context["error"])
    wording = _WORDING.get(fault["type"])
    return wording.format(**context) if wording else str(fault["msg"])
