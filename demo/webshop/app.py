"""The pages of the shop. Each page says how it got its data."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.webshop import live
from demo.webshop.orders import Orders
from demo.webshop.views import Views
from syncer.client import FreshnessError, Session, Shown, TimedOut, Unavailable
from syncer.client.aio import AsyncClient

PATIENCE = 1.5
"""Seconds that a page waits for the read model before it says that the order is being processed."""
PAGE = 10
"""Orders on a page."""
MOST = 99
"""Pieces of a product in an order."""
_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)


class Addresses(NamedTuple):
    """Where the shop finds its servers."""

    dsn: str
    elasticsearch: str
    redis: str
    syncer: str


class Shop:
    """The endpoints of the shop."""

    def __init__(self, addresses: Addresses) -> None:
        self.orders, self.views = Orders(addresses.dsn), Views(addresses.elasticsearch, addresses.redis)
        self.syncer = AsyncClient(addresses.syncer)
        self._changes = f"{addresses.syncer}/models/orders/changes"
        self.templates = Jinja2Templates(_HERE / "templates")

    async def home(self, request: Request) -> Response:
        """Shows products, and the customer's own orders: a summary in Redis, page by page."""
        customer, session, page = _customer(request), _session(request), _number(request, "page", 1)

        async def from_postgres() -> dict[str, Any] | None:
            return await self.orders.customer(customer)

        shown = await self.syncer.read(
            "customer_summaries",
            session,
            lambda: self.views.summary(customer),
            from_postgres,
            keys=[customer],
            fresh_within=PATIENCE,
        )
        if shown.value is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no customer {customer}.")
        recent = shown.value.get("recent_orders", [])
        values = {
            "customer": shown.value,
            "products": await self.orders.products(),
            "recent": recent[(page - 1) * 5 : page * 5],
            "page": page,
            "pages": max(1, -(-len(recent) // 5)),
        }
        return self._page(request, "home.html", session, shown.source, shown.reason, **values)

    async def place(self, request: Request) -> Response:
        """Places an order. The token of the transaction goes into the customer's cookie."""
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise HTTPException(HTTPStatus.FORBIDDEN, "The form was sent by another site.")
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        products = {
            int(name): int(text)
            for name, [text, *_] in form.items()
            if name.isdecimal() and text.isdecimal() and len(name) < 10 and 0 < int(text[:4]) <= MOST
        }
        if not products:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"Choose a product, and 1 to {MOST} pieces.")
        note = form.get("note", [""])[0][:200].replace("\0", "")
        order, token = await self.orders.place(_customer(request), products, note)
        response = RedirectResponse(f"/orders/{order}", HTTPStatus.SEE_OTHER)
        _remember(response, Session(token))
        return response

    async def order(self, request: Request) -> Response:
        """Shows an order of the customer: at once if the read model has it, else as "processing".

        The "processing" page loads itself again with `?again`. Then the order is refreshed, or read from PostgreSQL.
        """
        order, session = request.path_params["order"], _session(request)
        if "again" not in request.query_params:
            try:
                if session.token:
                    await self.syncer.wait("orders", session.token, PATIENCE)
                return self._order(request, session, Shown(await self.views.order(order), "read model"))
            except (TimedOut, Unavailable) as error:
                return self._page(request, "processing.html", session, "nothing yet", str(error), order=order)
            except FreshnessError:
                pass  # the commit is lost: `read` forgets the token, and asks PostgreSQL
        shown = await self.syncer.read(
            "orders",
            session,
            lambda: self.views.order(order),
            lambda: self.orders.order(order),
            keys=[order],
            fresh_within=PATIENCE,
        )
        return self._order(request, session, shown)

    async def all_orders(self, request: Request) -> Response:
        """Lists the orders of all customers page by page: a search, so wait until searches show the last write."""
        session = _session(request)
        before = datetime.fromtimestamp(_number(request, "before", 9_999_999_999_000) / 1000, UTC)
        after = before, _number(request, "id", (1 << 62))
        shown = await self.syncer.read(
            "orders",
            session,
            lambda: self.views.page(*after, PAGE),
            lambda: self.orders.page(*after, PAGE),
            fresh_within=PATIENCE,
            searchable=True,
        )
        last = shown.value[-1] if len(shown.value) == PAGE else None
        following = last and f"?before={int(last['placed_at'].timestamp() * 1000)}&id={last['order_id']}"
        values = {"orders": shown.value, "following": following, "staleness": await self._staleness()}
        return self._page(request, "orders.html", session, shown.source, shown.reason, **values)

    async def dashboard(self, request: Request) -> Response:
        """Shows the newest orders. Without JavaScript, the page loads itself again."""
        found = await self.views.dashboard()
        return self._page(request, "dashboard.html", _session(request), "read model", "", **found)

    async def dashboard_events(self, _: Request) -> Response:
        """Sends the dashboard whenever it has changed."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            live.events(self.views, self._changes), media_type="text/event-stream", headers=headers
        )

    async def _staleness(self) -> float | None:
        """Returns the greatest age of a document in seconds; None if it is unknown."""
        try:
            seconds: float | None = (await self.syncer.status("orders", 0.5))["staleness_seconds"]
        except (FreshnessError, KeyError):
            return None
        return seconds

    def _order(self, request: Request, session: Session, shown: Shown[dict[str, Any] | None]) -> Response:
        found = shown.value
        if found is None or found["customer"]["id"] != _customer(request):
            raise HTTPException(HTTPStatus.NOT_FOUND, f"You have no order {request.path_params['order']}.")
        return self._page(request, "order.html", session, shown.source, shown.reason, order=found)

    def _page(
        self, request: Request, template: str, session: Session, source: str, reason: str, **values: Any
    ) -> Response:
        values |= {"source": source, "reason": reason, "most": MOST}
        response = self.templates.TemplateResponse(request, template, values)
        _remember(response, session)
        return response


def application(addresses: Addresses) -> ASGIApp:
    """Returns the shop as an ASGI application."""
    shop = Shop(addresses)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await shop.syncer.close()
        await shop.views.close()

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.SERVICE_UNAVAILABLE
        text = error.detail if isinstance(error, HTTPException) else str(error)
        return shop.templates.TemplateResponse(request, "error.html", {"text": text}, status_code=status)

    routes = [
        Route("/", shop.home),
        Route("/orders", shop.place, methods=["POST"]),
        Route("/orders", shop.all_orders),
        Route("/orders/{order:int}", shop.order),
        Route("/dashboard", shop.dashboard),
        Route("/dashboard/events", shop.dashboard_events),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]
    handlers: dict[Any, Any] = {HTTPException: failed, FreshnessError: failed}
    return _SafeHeaders(Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers))


class _SafeHeaders:
    """ASGI middleware that adds the headers which limit what a page may do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"})
            await send(message)

        await self._app(scope, receive, with_headers)


def _customer(request: Request) -> int:
    text = request.cookies.get("customer", "1")
    return int(text) if text.isdecimal() and len(text) < 10 else 1


def _session(request: Request) -> Session:
    return Session(request.cookies.get("token", ""))


def _remember(response: Response, session: Session) -> None:
    if session.token:
        response.set_cookie("token", session.token, httponly=True, samesite="lax")
    else:
        response.delete_cookie("token")


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return (
        max(1, min(int(text), default if name != "page" else 1000)) if text.isdecimal() and len(text) < 20 else default
    )
