"""The version: here, and nowhere else. pyproject.toml reads it, and `make generate` writes it into the web package."""

VERSION = "0.1.0"
