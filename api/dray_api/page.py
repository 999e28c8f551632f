"""The page at `/`: a few static files without any data. What it shows it asks of the API, as any client does.

Clients that do not ask for HTML are answered 404 at `/`, as the original answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from dray_api import params

_FILES = Path(__file__).with_name("page_files")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_INDEX = "index.html"
NAMES = frozenset(file.name for file in _FILES.iterdir() if file.suffix in _TYPES)
PATHS = frozenset({"/", *(f"/page/{name}" for name in NAMES - {_INDEX})})
"""Asked without a token."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def routes() -> Iterator[tuple[str, Endpoint]]:
    """(path, endpoint) of each file."""
    for name in sorted(NAMES):
        path = "/" if name == _INDEX else f"/page/{name}"
        yield path, _endpoint(_FILES / name)


def _endpoint(file: Path) -> Endpoint:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers, media_type = {**_HEADERS, "ETag": etag}, _TYPES[file.suffix]

    async def answer(request: Request) -> Response:
        if any(etag in given.decode("latin-1") for given in params.header(request, b"if-none-match")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    if file.name == _INDEX:
        headers["Vary"] = "Accept"
    return answer


def wanted(scope: Scope) -> bool:
    """Whether a request for `/` is a browser's."""
    return scope["method"] in ("GET", "HEAD") and any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
