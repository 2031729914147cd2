"""Who is let in: this machine's visitor with the token of the address, and nobody through them.

The server listens on loopback, which every page that the visitor has open can reach as well. A name
that was pointed at this machine is told by its Host header, a foreign page by its lack of the
cookie (SameSite=Strict) and by what the browser says of where a request comes from.
"""

from __future__ import annotations

import hmac
import secrets

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NAMES = ("127.0.0.1", "localhost")
_OWN = (None, "same-origin", "none")


def new_token() -> str:
    """256 random bits, as they stand in an address."""
    return secrets.token_urlsafe(32)


def guarded(token: str) -> Middleware:
    """Lets in requests that are addressed to this machine and know the token.

    The first one brings it in its address, and is sent on to the address without it, with a cookie;
    so that it stands in no history and in no link.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host, _, port = request.host.rpartition(":")
        if host not in _NAMES or port != str(_port(request)):
            raise web.HTTPForbidden(text="This name is not the server's.")
        cookie = f"multimem_{port}"  # cookies are shared between the ports of a machine
        given = request.query.get("token")
        if given is not None and request.method == "GET":
            if not _same(given, token):
                raise web.HTTPForbidden(text="Open the address that `multimem view` printed.")
            answer = web.HTTPSeeOther(request.path)
            answer.set_cookie(cookie, token, httponly=True, samesite="Strict", path="/")
            raise answer
        if not _same(request.cookies.get(cookie, ""), token):
            raise web.HTTPForbidden(text="Open the address that `multimem view` printed.")
        if request.method not in {"GET", "HEAD"} and not _from_own_page(request):
            raise web.HTTPForbidden(text="Only the server's own page may change something.")
        return await handler(request)

    return guard


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Policy and all that goes with it, on every answer, errors included."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.popall("Server", None)


def _port(request: web.Request) -> int | None:
    """The port that a request came in by."""
    address = None if request.transport is None else request.transport.get_extra_info("sockname")
    return address[1] if address else None


def _from_own_page(request: web.Request) -> bool:
    # The header of its script can be sent by no form, and by no foreign script without asking.
    if request.headers.get("HX-Request") != "true":
        return False
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site")
    return origin in {None, f"http://{request.host}"} and site in _OWN


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())
