"""Which paths are there, and what stands in front of them? The whole HTTP interface as one ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from aiom4b import __version__
from aiom4b.control import problems
from aiom4b.control.guard import Guard
from aiom4b.control.lag import Lag
from aiom4b.control.routes import audible, backups, books, jobs, observation, operation
from aiom4b.control.routes.parts import Parts
from aiom4b.control.service import Service
from aiom4b.control.tickets import Tickets

_API = "/api/v1"
_TAGS = {
    "jobs": "Books to be made, and what became of them.",
    "service": "What the service is doing, and what it shall do.",
    "books": "Finished books, with HTTP Range.",
    "audible": "The owner's Audible accounts and what is in their libraries.",
    "backups": "Verified copies of the sources.",
    "watching": "Events as they happen, health and numbers.",
}


def application(service: Service, *, closing: anyio.Event, lag: Lag, monotonic: Callable[[], float]) -> ASGIApp:
    """Return the interface to a service. Its streams end when ``closing`` is set."""
    tickets = Tickets(monotonic)
    app = FastAPI(
        title="aiom4b",
        version=__version__,
        summary="Turns folders of MP3s into proved, chaptered audiobooks.",
        description="Over the service's Unix socket, which its owner and its group may use; and over TCP if that is "
        "switched on, then with a key. Errors are problem+json (RFC 9457) with a stable code and a remedy.",
        openapi_tags=[{"name": name, "description": description} for name, description in _TAGS.items()],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = Parts(service=service, closing=closing, lag=lag, tickets=tickets)
    problems.install(app)
    app.include_router(observation.root)
    for router in (observation.router, operation.router, jobs.router, books.router, audible.router, backups.router):
        app.include_router(router, prefix=_API)
    app.include_router(observation.sockets)
    app.include_router(observation.sockets, prefix=_API)
    _document(app)
    guarded: ASGIApp = Guard(app, api=lambda: service.settings().api, tickets=tickets)
    if origins := service.settings().api.cors_origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "Range", "X-API-Key"],
            expose_headers=["Accept-Ranges", "Content-Disposition", "Content-Length", "Content-Range", "Location"],
        )
    return guarded


def _document(app: FastAPI) -> None:
    """Describe the interface at /openapi.json and /docs, the latter with scripts from this machine."""
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the description


def _described(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    parts = schema["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    parts["schemas"]["ProblemDetails"] = problems.ProblemDetails.model_json_schema()
    parts["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "On TCP only."},
        "bearer": {"type": "http", "scheme": "bearer", "description": "The same key; on TCP only."},
    }
    schema["security"] = [{"key": []}, {"bearer": []}, {}]
    problem = problems.documented(422)[422]
    for path in schema["paths"].values():
        for method in path.values():
            if "422" in method["responses"]:
                method["responses"]["422"] = problem
            method["responses"]["default"] = {**problem, "description": "Any other failure."}
    return schema
