"""The app that faults happen to, with what the soak asks for besides."""

from __future__ import annotations

from fastapi import FastAPI

from tools.faults import app as faults
from tools.soaking.app import add_routes


def create_app() -> FastAPI:
    app = faults.create_app()
    add_routes(app)
    return app
