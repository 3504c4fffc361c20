"""A user's folder in; what it says and what it should hold out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relay_otel.contract.lint_own import lint_own
from relay_otel.contract.own import METRICS, Own, load_own, promised
from relay_otel.contract.render_own import of_app, of_browsers
from relay_otel.stack.answers import ANSWERS, Answers, read_answers
from relay_otel.stack.compare import File, compare, edited
from relay_otel.stack.manifest import Manifest, read_manifest
from relay_otel.stack.render import of_metrics, render
from relay_otel.stack.sources import sources


@dataclass(frozen=True)
class Stack:
    """One folder with relay.yaml.

    Attributes:
        findings: what makes no sense in relay.yaml and metrics.yaml; nothing is made of them then.
    """

    folder: Path
    answers: Answers
    own: Own
    manifest: Manifest
    findings: tuple[str, ...]

    def files(self) -> list[File]:
        """Every file of the stack, and whose change is whose."""
        texts = render(sources(), self.answers, self.own, edited(self.folder, self.manifest))
        return compare(self.folder, texts, self.manifest)

    def files_of_metrics(self) -> list[File]:
        """The same of what is made of metrics.yaml alone, what a metric left behind among it."""
        made = set(of_metrics(self.answers, self.own))
        return [each for each in self.files() if each.path in made or each.wanted is None]

    @property
    def modules(self) -> frozenset[str]:
        """What programs import of what is made of metrics.yaml, as far as relay.yaml says where."""
        return frozenset(each for each in (self.answers.python, self.answers.typescript) if each)

    def without_module(self) -> Iterator[str]:
        """A sentence for each kind of metric that relay.yaml names no module for."""
        places = (
            ("python", self.answers.python, of_app(self.own), "the app"),
            ("typescript", self.answers.typescript, of_browsers(self.own), "pages"),
        )
        for key, path, metrics, emitter in places:
            if metrics and not path:
                names = ", ".join(metric.definition.name for metric in metrics)
                yield f"{key}: is not set in {self.folder / ANSWERS}, so no module was written for {emitter}: {names}"


def load_stack(folder: Path) -> Stack:
    """
    Raises:
        ContractError: relay.yaml or metrics.yaml cannot be read, in one sentence.
        StackError: this installation has no stack, or the manifest cannot be read.
    """
    answers = read_answers(folder / ANSWERS)
    own = load_own(folder / METRICS, promised(sources() / "contract", answers.promises))
    return Stack(folder, answers, own, read_manifest(folder), tuple(lint_own(own)))
