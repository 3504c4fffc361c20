"""The folders at the top in; relay_otel/_stack of the wheel out, and in the sdist the same folders.

Everything else stands in pyproject.toml. An editable install has no copy: there the checkout's own folders are read.
"""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PATTERNS: tuple[str, ...] = runpy.run_path(str(HERE / "src/relay_otel/stack/packed.py"))["PATTERNS"]


def packed() -> list[str]:
    """Every file that goes along, seen from here."""
    found = []
    for pattern in PATTERNS:
        files = sorted(file.relative_to(HERE).as_posix() for file in HERE.glob(pattern) if file.is_file())
        if not files:
            raise SystemExit(f"{pattern} of src/relay_otel/stack/packed.py finds no file; build from a whole checkout.")
        found += files
    return found


class BuildWithStack(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file, target in self._copies().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(file, target)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *packed()]  # the sdist takes what this names

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *([] if self.editable_mode else self._copies().values())]

    def _copies(self) -> dict[str, str]:
        return {file: str(Path(self.build_lib, "relay_otel", "_stack", file)) for file in packed()}


setup(cmdclass={"build_py": BuildWithStack})
