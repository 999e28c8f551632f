"""Requests that are wrong in one way each: the exact status, a piece of what is said, and nothing created by any of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from kit.api import Api

pytestmark = pytest.mark.ours

TOKEN = "correct-horse-battery-staple"
JOB = b'{"steps":[{"source":"a"}]}'
PROTOCOL = "Invalid HTTP request received."  # said by the HTTP parser, before there is a request to answer


def _step(**fields: object) -> bytes:
    return json.dumps({"steps": [{"source": "a", **fields}]}).encode()


def _variables(*variables: object) -> bytes:
    return json.dumps({"steps": [{"source": "a"}], "environment": variables}).encode()


def _nested(levels: int) -> bytes:
    """A job with an unknown field so deep that there are that many arrays and objects within each other."""
    return b'{"steps":[{"source":"a"}],"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


NO_JSON = {
    "empty": (b"", "zero-length"),
    "blank": (b" \n", "is empty"),
    "cut short": (b'{"steps":[{"source":"a"}', "unexpected end of data at line 1, column 25"),
    "text after": (JOB + b" x", "line 1, column 28"),
    "two documents": (JOB + JOB, "unexpected content after document"),
    "trailing comma in an array": (b'{"steps":[{"source":"a"},]}', "trailing comma"),
    "trailing comma in an object": (b'{"steps":[{"source":"a"}],}', "trailing comma"),
    "single quotes": (b"{'steps':[]}", "line 1, column 2"),
    "an unquoted key": (b"{steps:[]}", "line 1, column 2"),
    "a comment": (b"/* job */" + JOB, "line 1, column 1"),
    "NaN": (b'{"steps":[{"source":"a"}],"x":NaN}', "line 1, column 31"),
    "Infinity": (b'{"steps":[{"source":"a"}],"x":-Infinity}', "line 1, column"),
    "a number out of range": (b'{"steps":[{"source":"a"}],"x":1e999}', "infinity"),
    "a leading zero": (b'{"steps":[{"source":"a"}],"x":01}', "leading zero"),
    "a hexadecimal number": (b'{"steps":[{"source":"a"}],"x":0x1}', "line 1"),
    "True": (b'{"steps":[{"source":"a","refresh":True}]}', "line 1"),
    "a byte order mark": (b"\xef\xbb\xbf" + JOB, "BOM"),
    "UTF-16": (JOB.decode().encode("utf-16"), "byte 0xff at line 1, column 1"),
    "a byte that is no UTF-8": (b'{\n"name":"\xff","steps":[{"source":"a"}]}', "byte 0xff at line 2, column 9"),
    "overlong UTF-8": (b'{"name":"\xc0\xaf","steps":[{"source":"a"}]}', "not UTF-8"),
    "a surrogate in UTF-8": (b'{"name":"\xed\xa0\x80","steps":[{"source":"a"}]}', "not UTF-8"),
    "a lone high surrogate": (b'{"name":"\\ud800","steps":[{"source":"a"}]}', "surrogate"),
    "a lone low surrogate": (b'{"name":"\\udc00","steps":[{"source":"a"}]}', "surrogate"),
    "surrogates in the wrong order": (b'{"name":"\\udc00\\ud800","steps":[{"source":"a"}]}', "surrogate"),
    "a control character in a string": (b'{"name":"a\nb","steps":[{"source":"a"}]}', "control character"),
    "an unknown escape": (b'{"name":"\\x41","steps":[{"source":"a"}]}', "escape"),
    "too deep by one": (_nested(33), "nested deeper than 32"),
    "far too deep": (_nested(900), "nested deeper than 32"),
    "deep enough to overflow a stack": (b"[" * 500_000, "depth limit"),
    "a form": (b"name=x&steps=y", "line 1, column 1"),
}
NO_JOB = {
    "null": (b"null", "", "must be an object"),
    "an array": (b"[]", "", "must be an object"),
    "a job in an array": (b"[" + JOB + b"]", "", "must be an object"),
    "a string": (b'"steps"', "", "must be an object"),
    "a number": (b"7", "", "must be an object"),
    "no steps": (b"{}", "steps", "is required"),
    "steps null": (b'{"steps":null}', "steps", "is required"),
    "steps empty": (b'{"steps":[]}', "steps", "at least 1 entry"),
    "steps an object": (b'{"steps":{"0":{"source":"a"}}}', "steps", "must be an array"),
    "steps a string": (b'{"steps":"a"}', "steps", "must be an array"),
    "the last of two steps counts": (b'{"steps":[{"source":"a"}],"steps":[]}', "steps", "at least 1 entry"),
    "101 steps": (json.dumps({"steps": [{"source": "a"}] * 101}).encode(), "steps", "at most 100 entries"),
    "a step null": (b'{"steps":[null]}', "steps[0]", "must be an object"),
    "a step a string": (b'{"steps":["a"]}', "steps[0]", "must be an object"),
    "a second step without a source": (b'{"steps":[{"source":"a"},{}]}', "steps[1].source", "is required"),
    "a source null": (_step(source=None), "steps[0].source", "is required"),
    "a source empty": (_step(source=""), "steps[0].source", "must not be empty"),
    "a source a number": (_step(source=1), "steps[0].source", "must be a string"),
    "a source in upper case": (_step(source="Ubuntu"), "steps[0].source", "image reference"),
    "a source with a blank": (_step(source="a b"), "steps[0].source", "image reference"),
    "a source with a line break after": (_step(source="a\n"), "steps[0].source", "image reference"),
    "a source that is a URL": (_step(source="http://a/b"), "steps[0].source", "image reference"),
    "a source with an option": (_step(source="--privileged"), "steps[0].source", "image reference"),
    "a source with an empty tag": (_step(source="a:"), "steps[0].source", "image reference"),
    "a source too long": (_step(source="a" * 513), "steps[0].source", "at most 512 characters"),
    "a name a number": (_step(name=1), "steps[0].name", "must be a string"),
    "a name too long": (_step(name="a" * 1025), "steps[0].name", "at most 1024 characters"),
    "a job's name a list": (b'{"name":[],"steps":[{"source":"a"}]}', "name", "must be a string"),
    "a job's name too long": (json.dumps({"name": "é" * 1025, "steps": [{"source": "a"}]}).encode(), "name", "at most 1024 characters"),
    "refresh a string": (_step(refresh="true"), "steps[0].refresh", "must be true or false"),
    "refresh a number": (_step(refresh=1), "steps[0].refresh", "must be true or false"),
    "output unknown": (_step(output="stdin"), "steps[0].output", "'stdout', 'stderr' or an absolute path"),
    "output relative": (_step(output="out.txt"), "steps[0].output", "absolute path"),
    "output in upper case": (_step(output="STDOUT"), "steps[0].output", "absolute path"),
    "output the root": (_step(output="/"), "steps[0].output", "path of a file"),
    "output a folder": (_step(output="/a/"), "steps[0].output", "path of a file"),
    "output with dots": (_step(output="/a/../../etc/passwd"), "steps[0].output", "path of a file"),
    "output in /proc": (_step(output="/proc/self/mem"), "steps[0].output", "must not lie in"),
    "output in the job's volume": (_step(output="/.dray/0.verdict"), "steps[0].output", "must not lie in"),
    "output with NUL": (_step(output="/a\0b"), "steps[0].output", "NUL"),
    "output with a part too long": (_step(output="/" + "a" * 256), "steps[0].output", "at most 4095 bytes"),
    "output a boolean": (_step(output=True), "steps[0].output", "must be a string"),
    "a delimiter of two lines": (_step(beginDelimiter="a\nb"), "steps[0].beginDelimiter", "one line"),
    "a delimiter too long": (_step(endDelimiter="é" * 2049), "steps[0].endDelimiter", "at most 4096 bytes"),
    "a delimiter with NUL": (_step(endDelimiter="\0"), "steps[0].endDelimiter", "NUL"),
    "an environment an object": (_step(environment={"A": "b"}), "steps[0].environment", "must be an array"),
    "a variable a string": (_step(environment=["A=b"]), "steps[0].environment[0]", "must be an object"),
    "a variable without a name": (_variables({"value": "x"}), "environment[0].variable", "is required"),
    "a variable with an empty name": (_variables({"variable": "", "value": "x"}), "environment[0].variable", "must not be empty"),
    "a variable without a value": (_variables({"variable": "A"}), "environment[0]", "either a value or the name of a secret"),
    "a variable with a number": (_variables({"variable": "A", "value": 1}), "environment[0].value", "must be a string"),
    "a variable named with =": (_variables({"variable": "A=B", "value": ""}), "environment[0].variable", "'='"),
    "a variable with NUL": (_variables({"variable": "A", "value": "\0"}), "environment[0].value", "NUL"),
    "a variable too large": (_variables({"variable": "A", "value": "x" * 130_999}), "environment[0]", "at most 131000 bytes"),
    "a variable with a value and a secret": (_variables({"variable": "A", "value": "", "secret": "a"}), "environment[0]", "either a value or"),
    "a secret with a path": (_variables({"variable": "A", "secret": "../a"}), "environment[0].secret", "letters, digits"),
    "a timeout of 0": (_step(timeout=0), "steps[0].timeout", "more than 0"),
    "a timeout that is no number": (_step(timeout="1m"), "steps[0].timeout", "must be a number"),
    "too many retries": (_step(retries=11), "steps[0].retries", "at most 10"),
    "half a retry": (_step(retries=0.5), "steps[0].retries", "whole number"),
    "a command that is a string": (_step(command="sh"), "steps[0].command", "must be an array"),
    "too little memory": (_step(resources={"memory": "1Mi"}), "steps[0].resources.memory", "6Mi"),
    "no cpu at all": (_step(resources={"cpu": 0}), "steps[0].resources.cpu", "from 1m"),
    "a mount on everything": (_step(mounts=[{"volume": "v", "path": "/"}]), "steps[0].mounts[0].path", "must not be '/'"),
    "a mount of nothing": (_step(mounts=[{"path": "/v"}]), "steps[0].mounts[0]", "either a volume or a hostPath"),
    "a path of the host's that is not allowed": (
        _step(mounts=[{"hostPath": "/etc", "path": "/v"}]),
        "steps[0].mounts[0].hostPath",
        "DRAY_HOST_PATHS names none",
    ),
    "nothing but always": (_step(always=True), "", "not marked always"),
    "a label with a blank": (b'{"steps":[{"source":"a"}],"labels":{"a b":"c"}}', "labels.a b", "named as Kubernetes labels"),
    "a label's value with a blank": (b'{"steps":[{"source":"a"}],"labels":{"a":"b c"}}', "labels.a", "letters, digits"),
    "too many variables": (_variables(*[{"variable": "A", "value": ""}] * 1001), "environment", "at most 1000 entries"),
}


def _request(line: str, *headers: str, body: bytes = b"") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{line} HTTP/1.1", *headers, *length, "Connection: close", "", ""]).encode("latin-1") + body


def _asked_as(host: str) -> bytes:
    return _request("GET /jobs", f"Host: {host}")


def _from(origin: str, host: str = "localhost:3000") -> bytes:
    return _request("POST /jobs", f"Host: {host}", f"Origin: {origin}", body=JOB)


HOST = "Host: localhost"
POST = f"POST /jobs HTTP/1.1\r\n{HOST}\r\n".encode()
RAW = {
    "no Host": (_request("POST /jobs", body=JOB), 400, "exactly one Host header is needed, there are 0"),
    "no Host in HTTP/1.0": (b"GET /jobs HTTP/1.0\r\n\r\n", 400, "there are 0"),
    "no Host for health either": (_request("GET /healthz"), 400, "there are 0"),
    "two Hosts": (_request("POST /jobs", HOST, "Host: evil.example", body=JOB), 400, "there are 2"),
    "the same Host twice": (_request("POST /jobs", HOST, HOST, body=JOB), 400, "there are 2"),
    "an empty Host": (_asked_as(""), 400, "not a name or an address"),
    "two names in one Host": (_asked_as("localhost, evil.example"), 400, "not a name or an address"),
    "a Host with a user": (_asked_as("localhost@evil.example"), 400, "not a name or an address"),
    "a Host with a path": (_asked_as("localhost/evil.example"), 400, "not a name or an address"),
    "a Host with a port that is none": (_asked_as("localhost:http"), 400, "not a name or an address"),
    "a Host with an empty port": (_asked_as("localhost:"), 400, "not a name or an address"),
    "a Host with a high byte": (_asked_as("localhost\xff"), 400, "not a name or an address"),
    "a foreign Host": (_asked_as("evil.example"), 403, "DRAY_HOSTS adds a name"),
    "a foreign Host with our port": (_asked_as("evil.example:3000"), 403, "'evil.example'"),
    "a foreign Host for health": (_request("GET /healthz", "Host: evil.example"), 403, "evil.example"),
    "a foreign Host on a route that is none": (_request("GET /nowhere", "Host: evil.example"), 403, "evil.example"),
    "a Host that begins like ours": (_asked_as("localhost.evil.example"), 403, "localhost.evil.example"),
    "a Host that ends like ours": (_asked_as("evil-localhost"), 403, "evil-localhost"),
    "an address of all": (_asked_as("0.0.0.0:3000"), 403, "0.0.0.0"),
    "another machine's address": (_asked_as("192.168.0.1"), 403, "192.168.0.1"),
    "an address written as one number": (_asked_as("2130706433"), 403, "2130706433"),
    "an IPv6 address of all": (_asked_as("[::]:3000"), 403, "'::'"),
    "a foreign absolute target": (_request("GET http://evil.example/jobs", "Host: evil.example"), 403, "evil.example"),
    "our absolute target with a foreign Host": (_request("GET http://localhost/jobs", "Host: evil.example"), 403, "evil.example"),
    "an absolute target without Host": (_request("GET http://localhost/jobs"), 400, "there are 0"),
    "a foreign Origin": (_from("http://evil.example"), 403, "http://evil.example"),
    "an Origin of another port": (_from("http://localhost:8080"), 403, "port 3000"),
    "an Origin of another name for us": (_from("http://127.0.0.1:3000"), 403, "127.0.0.1:3000"),
    "an Origin of the default port": (_from("http://localhost"), 403, "http://localhost"),
    "an opaque Origin": (_from("null"), 403, "'null'"),
    "an empty Origin": (_from(""), 403, "''"),
    "an Origin of a file": (_from("file://"), 403, "file://"),
    "an Origin of an extension": (_from("chrome-extension://localhost:3000"), 403, "chrome-extension"),
    "an Origin with a path": (_from("http://localhost:3000/x"), 403, "/x"),
    "an Origin with a user": (_from("http://localhost:3000@evil.example"), 403, "evil.example"),
    "two Origins": (
        _request("POST /jobs", "Host: localhost:3000", "Origin: http://localhost:3000", "Origin: http://evil.example", body=JOB),
        400,
        "at most one Origin",
    ),
    "a length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, PROTOCOL),
    "two lengths": (POST + b"Content-Length: 26\r\nContent-Length: 27\r\n\r\n" + JOB, 400, PROTOCOL),
    "a length that is none": (POST + b"Content-Length: x\r\n\r\n" + JOB, 400, PROTOCOL),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n" + JOB, 400, PROTOCOL),
    "a length with a sign": (POST + b"Content-Length: +26\r\n\r\n" + JOB, 400, PROTOCOL),
    "a length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999\r\n\r\n" + JOB, 400, PROTOCOL),
    "chunks and something else": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, PROTOCOL),
    "a chunk whose size is none": (POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400, PROTOCOL),
    "a blank before the colon": (b"GET /jobs HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, PROTOCOL),
    "a folded Host": (b"GET /jobs HTTP/1.1\r\nHost: localhost\r\n evil.example\r\nConnection: close\r\n\r\n", 400, PROTOCOL),
    "a folded header first": (b"GET /jobs HTTP/1.1\r\n Host: localhost\r\n\r\n", 400, PROTOCOL),
    "a NUL in a header": (b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400, PROTOCOL),
    "a bare line feed in a header": (b"GET /jobs HTTP/1.1\r\nHost: localhost\nHost: evil.example\r\nConnection: close\r\n\r\n", 400, PROTOCOL),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, PROTOCOL),
    "HTTP/0.9": (b"GET /jobs\r\n\r\n", 400, "there are 0"),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, PROTOCOL),
    "an unknown method": (b"BREW /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, PROTOCOL),
    "a CONNECT": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, PROTOCOL),
    "a blank in the path": (b"GET /jobs x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, PROTOCOL),
    "a high byte in the path": (b"GET /jobs/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, PROTOCOL),
    "OPTIONS of everything": (_request("OPTIONS *", HOST), 404, "no such route"),
    "a TRACE": (_request("TRACE /jobs", HOST), 405, "GET, HEAD, POST"),
    "bad percent-encoding": (_request("GET /jobs/%zz", HOST), 404, "no such job"),
    "percent-encoding cut short": (_request("GET /jobs/%", HOST), 404, "no such job"),
    "percent-encoded bytes that are no UTF-8": (_request("GET /jobs/%ff%fe", HOST), 404, "no such job"),
    "a percent-encoded line break": (_request("GET /jobs%0a", HOST), 404, "no such route"),
    "a percent-encoded NUL": (_request("GET /jobs/%00", HOST), 404, "no such job"),
    "the name of another Redis key": (_request("GET /jobs/x:log", HOST), 404, "no such job"),
    "a percent-encoded slash": (_request("GET /jobs%2fx%2fy", HOST), 404, "no such route"),
    "two slashes": (_request("GET //jobs", HOST), 404, "no such route"),
    "a slash at the end": (_request("GET /jobs/", HOST), 404, "no such route"),
    "a path in upper case": (_request("GET /JOBS", HOST), 404, "no such route"),
    "a version that is no number": (_request("GET /vx/jobs", HOST), 404, "no such route"),
    "a version in other digits": (_request("GET /v%D9%A3/jobs", HOST), 404, "no such route"),
    "a version twice": (_request("GET /v1/v1/jobs", HOST), 404, "no such route"),
    "an id of 7 KB": (_request("GET /jobs/" + "A" * 7000, HOST), 404, "no such job"),
    "an id of 10 KB": (_request("GET /jobs/" + "A" * 10_000, HOST), 414, "longer than 8192 bytes"),
    "a query of 10 KB": (_request("GET /jobs?" + "a" * 10_000, HOST), 414, "longer than 8192 bytes"),
    "a header of 100 KB": (_request("GET /jobs", HOST, "X: " + "a" * 100_000), 431, "longer than 65536 bytes"),
    "10000 headers": (_request("GET /jobs", HOST, *(f"X-{number}: a" for number in range(10_000))), 431, "longer than 65536 bytes"),
    "a header without an end": (b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2_000_000, 431, "longer than 524288 bytes"),
    "a target without an end": (b"GET /" + b"a" * 2_000_000, 431, "longer than 524288 bytes"),
    "empty lines without an end": (b"\r\n" * 1_000_000, 431, "longer than 524288 bytes"),
    "a body over the limit": (_request("POST /jobs", HOST, body=JOB + b" " * 2**20), 413, "larger than 1048576 bytes"),
    "a length over the limit, and no body": (POST + b"Content-Length: 1048577\r\n\r\n", 413, "larger than 1048576 bytes"),
    "a length far over the limit": (POST + b"Content-Length: 9223372036854775807\r\n\r\n{", 413, "larger than 1048576 bytes"),
    "chunks over the limit, without an end": (POST + b"Transfer-Encoding: chunked\r\n\r\n200000\r\n" + b" " * 2**20 + b" ", 413, "larger than"),
    "a body over the limit that is expected to wait": (POST + b"Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", 413, "larger than"),
    "a PUT of a job": (_request("PUT /jobs", HOST, body=JOB), 405, "GET, HEAD, POST"),
    "a POST of a job to a job": (_request("POST /jobs/x", HOST, body=JOB), 405, "DELETE, GET, HEAD"),
    "a DELETE of all jobs": (_request("DELETE /jobs", HOST), 405, "GET, HEAD, POST"),
    "a method by header": (_request("GET /jobs/x", HOST, "X-HTTP-Method-Override: DELETE"), 404, "no job x"),
}
QUERIES = {
    "0": "must be a whole number of at least 1",
    "000": "must be a whole number of at least 1",
    "-1": "must be a whole number of at least 1",
    "": "must be a whole number of at least 1",
    "x": "must be a whole number of at least 1",
    "1.0": "must be a whole number of at least 1",
    "1e3": "must be a whole number of at least 1",
    "%201": "must be a whole number of at least 1",
    "+1": "must be a whole number of at least 1",
    "%D9%A3": "must be a whole number of at least 1",
    "1%0a": "must be a whole number of at least 1",
}


PARAMETERS = {
    "no limit": ("GET", "/jobs?limit=", "limit", "whole number"),
    "a limit of 0": ("GET", "/jobs?limit=0", "limit", "whole number"),
    "too high a limit": ("GET", "/jobs?limit=1001", "limit", "at most 1000"),
    "a limit beyond all numbers": ("GET", f"/jobs?limit={'9' * 400}", "limit", "at most 1000"),
    "a cursor nobody gave": ("GET", "/jobs?cursor=abc", "cursor", "Link header"),
    "a cursor before all": ("GET", "/jobs?cursor=-1", "cursor", "Link header"),
    "a script for a cursor": ("GET", "/jobs?cursor=1)%20", "cursor", "Link header"),
    "a cursor too long": ("GET", f"/jobs?cursor={'1' * 16}", "cursor", "Link header"),
    "a fourth status": ("GET", "/jobs?status=waiting", "status", "running, complete or error"),
    "an empty name": ("GET", "/jobs?name=", "name", "1 to 1024"),
    "a name too long": ("GET", f"/jobs?name={'x' * 1025}", "name", "1 to 1024"),
    "an empty label": ("GET", "/jobs?label=", "label", "KEY or KEY=VALUE"),
    "a value of no label": ("GET", "/jobs?label=a&label==b", "label", "KEY or KEY=VALUE"),
    "too many labels": ("GET", "/jobs?" + "&".join(["label=a"] * 65), "label", "at most 64"),
    "an order that is none": ("GET", "/jobs?order=random", "order", "oldest or newest"),
    "a preflight of what": ("POST", "/jobs?preflight=yes", "preflight", "true or false"),
    "from the step before the first": ("POST", "/jobs/{id}/rerun?from=0", "from", "1 to 1"),
    "from a step after the last": ("POST", "/jobs/{id}/rerun?from=2", "from", "1 to 1"),
    "from nowhere": ("POST", "/jobs/{id}/rerun?from=", "from", "1 to 1"),
    "from the end": ("POST", "/jobs/{id}/rerun?from=-1", "from", "1 to 1"),
}
KEYS = {"empty": [""], "with a blank": ["a b"], "with a control character": ["a\tb"], "too long": ["x" * 256], "twice": ["a", "a"], "not ASCII": ["\xe4"]}
NOT_FOUND = [
    *("/jobs/{id}/steps/0/output", "/jobs/{id}/steps/2/output", "/jobs/{id}/steps/-1/output", "/jobs/{id}/steps/x/output", "/jobs/{id}/steps/%D9%A1/output"),
    *("/jobs/{id}/steps/1/output", "/jobs/none/steps/1/output", "/jobs/{id}:log/log", "/jobs/{id}/steps", "/jobs/{id}/steps/1"),
    f"/jobs/{{id}}/steps/{'9' * 300}/output",
]


@pytest.fixture(scope="module")
def seeded(api: Api) -> list[str]:
    """The ids that there are, and that there must be after each test."""
    api.post({"steps": [{"source": "a"}]})
    return api.ids()


@pytest.fixture(autouse=True)
def nothing_changed(api: Api, seeded: list[str]) -> Any:
    yield
    assert api.ids() == seeded


def _answer(received: bytes) -> tuple[int, str]:
    head, _, rest = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), rest.decode()


@pytest.mark.parametrize("name", NO_JSON)
def test_a_body_that_is_no_json(api: Api, name: str) -> None:
    body, says = NO_JSON[name]
    answer = api.http.post("/jobs", content=body)
    assert (answer.status_code, answer.json()["title"]) == (400, "Malformed request")
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("name", NO_JOB)
def test_json_that_is_no_job(api: Api, name: str) -> None:
    body, field, says = NO_JOB[name]
    answer = api.http.post("/jobs", content=body)
    assert (answer.status_code, answer.json()["title"]) == (422, "Invalid request")
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert says in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("name", RAW)
def test_a_request_that_is_wrong(api: Api, name: str) -> None:
    sent, status, says = RAW[name]
    received = api.raw(sent)
    found, text = _answer(received)
    assert found == status, text
    assert says in text
    assert received.count(b"HTTP/1.1 ") == 1  # nothing of it was taken for a second request
    assert status != 413 or b"connection: close" in received.lower()


@pytest.mark.parametrize("limit", QUERIES)
def test_a_limit_that_is_none(api: Api, seeded: list[str], limit: str) -> None:
    answer = api.http.get(httpx.URL(f"{api.url}/jobs/{seeded[0]}/log?limit={limit}"))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "limit", "message": QUERIES[limit]}]


def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    answer = api.http.post("/jobs", content=b'{"name":1,"steps":[{"source":""},{"source":"a","output":"x","refresh":0}]}')
    assert [error["field"] for error in answer.json()["errors"]] == ["name", "steps[0].source", "steps[1].output", "steps[1].refresh"]


def test_what_was_wrong_is_not_repeated_where_it_may_be_a_secret(api: Api) -> None:
    for variable in ({"variable": "A", "value": ["hunter2"]}, {"variable": "A", "value": "hunter2\0"}, {"variable": "hunter2=", "value": "x"}):
        answer = api.http.post("/jobs", content=_variables(variable))
        assert answer.status_code == 422
        assert "hunter2" not in answer.text
    assert "hunter2" not in api.process.output


def test_a_body_that_ends_early_creates_nothing(api: Api) -> None:
    assert api.raw(POST + b"Content-Length: 100\r\n\r\n" + JOB, ends=True) == b""


# --- who is let in


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.1.2.3:65535", "[::1]", "[::1]:3000", "[0:0:0:0:0:0:0:1]"])
def test_loopback_is_ours_under_every_name(api: Api, host: str) -> None:
    assert _answer(api.raw(_asked_as(host)))[0] == 200


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:3000"),
        ("HTTP://LOCALHOST:3000", "localhost:3000"),
        ("http://localhost", "localhost:80"),
        ("https://localhost", "localhost"),
        ("https://localhost:443", "localhost"),
        ("http://[::1]:3000", "[::1]:3000"),
    ],
)
def test_a_page_of_our_own_may_ask(api: Api, origin: str, host: str) -> None:
    assert _answer(api.raw(_request("GET /jobs", f"Host: {host}", f"Origin: {origin}")))[0] == 200


def test_the_host_counts_not_the_absolute_target(api: Api) -> None:
    assert _answer(api.raw(_request("GET http://evil.example/jobs", HOST)))[0] == 200


def test_a_configured_name_is_ours(make_api: Callable[..., Api]) -> None:
    api = make_api(DRAY_HOSTS="dray.example, Other.Example")
    asked = {host: _answer(api.raw(_asked_as(host)))[0] for host in ("dray.example", "other.example:443", "x.dray.example", "192.168.0.1", "localhost")}
    assert asked == {"dray.example": 200, "other.example:443": 200, "x.dray.example": 403, "192.168.0.1": 403, "localhost": 200}


def test_beyond_loopback_addresses_are_ours_and_other_names_are_not(make_api: Callable[..., Api]) -> None:
    api = make_api("--host", "0.0.0.0", "--no-auth")
    asked = {host: _answer(api.raw(_asked_as(host)))[0] for host in ("192.168.0.1:3000", "[fe80::1]", "localhost", "evil.example")}
    assert asked == {"192.168.0.1:3000": 200, "[fe80::1]": 200, "localhost": 200, "evil.example": 403}


# --- the token


@pytest.fixture(scope="module")
def closed(make_api: Callable[..., Api]) -> Api:
    return make_api(DRAY_TOKEN=TOKEN)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer wrong"],
        [f"Bearer {TOKEN}x".encode()],
        [f"Bearer {TOKEN[:-1]}".encode()],
        [f"Bearer {TOKEN.upper()}".encode()],
        [f"Basic {TOKEN}".encode()],
        [TOKEN.encode()],
        [f"Bearer{TOKEN}".encode()],
        [f"Bearer {TOKEN}, Bearer {TOKEN}".encode()],
        [f"Bearer {TOKEN}\xff".encode("latin-1")],
        [f"Bearer {TOKEN}".encode(), f"Bearer {TOKEN}".encode()],
        [b"Bearer wrong", f"Bearer {TOKEN}".encode()],
    ],
)
def test_without_the_token_nothing_goes(closed: Api, headers: list[bytes]) -> None:
    head = b"".join(b"Authorization: " + header + b"\r\n" for header in headers)
    for start in (
        "POST /jobs",
        "GET /jobs",
        "DELETE /jobs/x",
        "GET /v1/jobs",
        "GET /openapi.json",
        "GET /docs",
        "GET /nowhere",
        "GET /healthz/",
        "GET //healthz",
    ):
        received = closed.raw(f"{start} HTTP/1.1\r\n{HOST}\r\nConnection: close\r\n".encode() + head + b"\r\n")
        assert _answer(received)[0] == 401
        assert b"www-authenticate: bearer" in received.lower()


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_with_the_token_all_goes(closed: Api, seeded: list[str], scheme: str) -> None:
    answer = closed.http.get("/jobs", headers={"Authorization": scheme + TOKEN})
    assert [job["id"] for job in answer.json()] == seeded


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/healthz"])
def test_probes_need_no_token(closed: Api, path: str) -> None:
    assert httpx.get(closed.url + path, trust_env=False).status_code == 200


def test_a_token_does_not_let_a_foreign_page_in(closed: Api) -> None:
    assert closed.http.get("/jobs", headers={"Host": "evil.example"}).status_code == 403


def test_neither_token_nor_query_is_logged(closed: Api) -> None:
    closed.http.get("/jobs?secret=hunter2")
    closed.http.get("/jobs", headers={"Authorization": "Bearer hunter2"})
    assert "GET /jobs 200" in closed.process.output
    assert TOKEN not in closed.process.output
    assert "hunter2" not in closed.process.output


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_wrong_is_named(api: Api, seeded: list[str], name: str) -> None:
    method, path, field, says = PARAMETERS[name]
    answer = api.http.request(method, path.format(id=seeded[0]), content=JOB if method == "POST" else b"")
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert says in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/{id}/rerun"])
def test_a_key_that_is_none_makes_no_job(api: Api, seeded: list[str], name: str, path: str) -> None:
    headers = [(b"Idempotency-Key", value.encode("latin-1")) for value in KEYS[name]]
    answer = api.http.post(path.format(id=seeded[0]), content=JOB, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize("path", NOT_FOUND)
def test_what_is_not_there_is_not_found(api: Api, seeded: list[str], path: str) -> None:
    answer = api.http.get(path.format(id=seeded[0]))
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_last_event_id_that_is_no_number_is_overlooked(api: Api, seeded: list[str]) -> None:
    for text in ("x", "-1", "9" * 400, "1.5"):
        with api.http.stream("GET", f"/jobs/{seeded[0]}/log", headers={"Accept": "text/event-stream", "Last-Event-ID": text}) as answer:
            assert answer.status_code == 200
            assert next(answer.iter_lines()) == "retry: 1000"
