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
                yield each, template.removesuffix("/{path}") if _is_mount(own) else template


def _is_mount(route: Any) -> bool:
    from starlette.routing import Mount  # where there are routes to ask about, starlette is loaded

    return isinstance(route, Mount)


def redirect_target(routes: Iterable[Any], scope: Scope) -> str | None:
    """Template of the route that ``scope`` would reach, looked for below mounts too."""
    for route, template in templates(routes):
        match, child = route.matches(dict(scope))
        if match.value == 0:  # Match.NONE
            continue
        inner = getattr(route, "starlette_route", None) or route
        if not _is_mount(inner):
            return template
        below = redirect_target(inner.routes or (), {**scope, **child})
        return template + below if below is not None else None
    return None
