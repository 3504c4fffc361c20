"""An application's routes in; their templates out.

A template is the framework's path format without converters, with the prefixes of included routers and of mounts
composed: ``/api/{tenant}/chat/{id}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Scope = Any


def route_path(scope: Scope) -> str:
    """The path below the proxy's ``root_path``, as Starlette's routers see it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


def templates(routes: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Each route and its template, routers that are included in one another composed; mounts are not entered."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)  # FastAPI >= 0.137 keeps included routers whole
        for each in contexts() if contexts is not None else (route,):
            own = getattr(each, "starlette_route", None) or each
            template = getattr(own, "path_format", None)
            if template:
                yield each, template.removesuffix("/{path}") if is_mount(own) else template


def is_mount(route: Any) -> bool:
    """Whether it is Starlette's Mount."""
    from starlette.routing import Mount  # where there are routes to ask about, starlette is loaded

    return isinstance(route, Mount)


def has_route(routes: Iterable[Any], wanted: str) -> bool:
    """Whether a route or mount of the template ``wanted`` is among ``routes``, below their mounts and hosts too."""
    for route, template in templates(routes):
        if template == wanted:
            return True
        own = getattr(route, "starlette_route", None) or route
        if is_mount(own) and wanted.startswith(template) and has_route(own.routes or (), wanted[len(template) :]):
            return True
    return any(has_route(route.routes or (), wanted) for route in routes if _is_host(route))


def redirect_target(routes: Iterable[Any], scope: Scope) -> str | None:
    """Template of the route that ``scope`` would reach, looked for below mounts and hosts too."""
    for host in routes:  # a host has no template of its own
        if _is_host(host):
            match, child = host.matches(scope)
            found = redirect_target(host.routes or (), {**scope, **child}) if match.value else None
            if found is not None:
                return found
    for route, template in templates(routes):
        match, child = route.matches(dict(scope))
        if match.value == 0:  # Match.NONE
            continue
        own = getattr(route, "starlette_route", None) or route
        if not is_mount(own):
            return template
        if ends_here(own):
            return template + "/{path}"
        below = redirect_target(own.routes or (), {**scope, **child})
        return template + below if below is not None else None
    return None


def ends_here(mount: Any) -> bool:
    """Whether what is mounted chooses no further: StaticFiles, WSGI, a plain ASGI application."""
    return getattr(getattr(mount, "_base_app", mount.app), "routes", None) is None


def _is_host(route: Any) -> bool:
    return hasattr(route, "host_regex")
