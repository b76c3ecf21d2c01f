"""A step that comes round again takes what it submitted before."""

from __future__ import annotations

from typing import Any

from aiida.engine import ToContext, WorkChain, run_get_node

from aiida_difftre.workchains.once import SubmitOnceMixin


class Child(WorkChain):
    """Does nothing."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.outline(cls.end)

    def end(self) -> None:
        """End."""


class Other(Child):
    """Does nothing either."""


class Repeating(SubmitOnceMixin, WorkChain):
    """Does its step twice, as after a kill between the submission and the next checkpoint."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.outline(cls.once, cls.once, cls.others)

    def once(self) -> ToContext:
        """The step."""
        return ToContext(child=self.submit(Child, metadata={"call_link_label": "step"}))

    def others(self) -> ToContext:
        """Steps with another label, of another kind, and without a label."""
        again = self.submit(Child, {"metadata": {"call_link_label": "again"}})
        other = self.submit(Other, metadata={"call_link_label": "step"})
        return ToContext(again=again, other=other, first=self.submit(Child), second=self.submit(Child))


def test_a_step_is_submitted_once() -> None:
    _, node = run_get_node(Repeating)
    assert node.is_finished_ok
    called = [(link.link_label, link.node.process_label) for link in node.base.links.get_outgoing().all()]
    assert sorted(called) == [
        ("CALL", "Child"),
        ("CALL", "Child"),
        ("again", "Child"),
        ("step", "Child"),
        ("step", "Other"),
    ]
