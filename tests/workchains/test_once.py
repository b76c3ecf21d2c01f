"""A step that comes round again takes what it submitted before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiida import orm
from aiida.common import AttributeDict
from aiida.common.links import LinkType
from aiida.engine import (
    BaseRestartWorkChain,
    ProcessState,
    ToContext,
    WorkChain,
    calcfunction,
    run_get_node,
    while_,
)
from aiida.engine.persistence import AiiDAPersister, get_object_loader
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from plumpy.persistence import Bundle, LoadSaveContext

from aiida_difftre.workchains import once
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


class Interrupted(SubmitOnceMixin, WorkChain):
    """Called two steps, and told no worker of them."""

    checkpoint: Bundle
    called: list[WorkChain]

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.outline(cls.begin)

    def begin(self) -> None:
        """Begin the steps, and keep the checkpoint of this moment."""
        labels = [{"call_link_label": f"step_{number}"} for number in range(2)]
        Interrupted.called = [instantiate_process(self.runner, Child, metadata=metadata) for metadata in labels]
        Interrupted.checkpoint = Bundle(self, LoadSaveContext(loader=get_object_loader()))


class Early(SubmitOnceMixin, WorkChain):
    """Does a step of which a process without a checkpoint is left."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.outline(cls.begin, cls.end)

    def begin(self) -> ToContext:
        """The step, after a kill."""
        metadata = {"call_link_label": "step"}
        left = instantiate_process(self.runner, Child, metadata=metadata).node
        left.delete_checkpoint()
        return ToContext(child=self.submit(Child, metadata=metadata))

    def end(self) -> None:
        """End."""


def test_a_step_without_a_checkpoint_is_submitted_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "SUBMISSION_S", 0.0)
    _, node = run_get_node(Early)
    assert node.is_finished_ok
    left, afresh = sorted(node.called, key=lambda called: called.pk or 0)
    assert left.is_excepted
    assert "before Child<" in str(left.exception)
    assert afresh.is_finished_ok


@calcfunction
def double(x: orm.Int) -> orm.Int:
    """Of one node."""
    return orm.Int(2 * x.value)


@calcfunction
def split(x: orm.Int, y: orm.Int) -> dict[str, orm.Int]:
    """Of two nodes, two."""
    return {"sum": orm.Int(x.value + y.value), "product": orm.Int(x.value * y.value)}


class Computing(SubmitOnceMixin, WorkChain):
    """Comes round its step twice."""

    orders: list[list[str]]

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.output_namespace("of", dynamic=True)
        spec.outline(cls.work, cls.work)

    def work(self) -> None:
        """Two functions, one of them with two labels."""
        twice = self.compute(double, "double", orm.Int(3))
        others = self.compute(split, "split", twice, y=orm.Int(5))
        Computing.orders.append(list(others))
        again = self.compute(double, "double_1", orm.Int(4))
        self.out("of", {"twice": twice, "again": again, **others})


def test_a_function_is_called_once() -> None:
    Computing.orders = []
    outputs, node = run_get_node(Computing)
    assert node.is_finished_ok
    assert {name: one.value for name, one in outputs["of"].items()} == {
        "twice": 6, "again": 8, "sum": 11, "product": 30
    }  # fmt: skip
    assert sorted(link.link_label for link in node.base.links.get_outgoing(orm.ProcessNode).all()) == [
        "double", "double_1", "split"
    ]  # fmt: skip
    assert Computing.orders == [["sum", "product"]] * 2, "labels are in the order in which cells were made"


class Answers(WorkChain):
    """Has outputs."""

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.output("answer", valid_type=orm.Int)
        spec.output("more.answers", valid_type=orm.Int)
        spec.outline(cls.end)

    def end(self) -> None:
        """The outputs."""
        self.out("answer", orm.Int(42).store())
        self.out("more.answers", orm.Int(43).store())


class Killed(SubmitOnceMixin, BaseRestartWorkChain):
    """Its worker is killed between its outputs and the next checkpoint, and another one takes it up."""

    _process_class = Answers
    missing: Any
    outputs_of_second: Any

    @classmethod
    def define(cls, spec: Any) -> None:
        super().define(spec)
        spec.expose_outputs(Answers)
        spec.outline(cls.setup, while_(cls.should_run_process)(cls.run_process, cls.inspect_process), cls.results)

    def setup(self) -> None:
        """No inputs."""
        super().setup()
        self.ctx.inputs = AttributeDict()

    def results(self) -> None:
        """The outputs, twice."""
        checkpoint = Bundle(self, LoadSaveContext(loader=get_object_loader()))
        super().results()
        self.update_outputs()
        earlier = orm.Int(44).store()
        earlier.base.links.add_incoming(self.node, LinkType.RETURN, "answer_of_an_earlier_version")
        context = LoadSaveContext(runner=self.runner, loop=self.loop, loader=get_object_loader())
        second: Any = checkpoint.unbundle(context)
        super(Killed, second).results()
        Killed.missing = second.spec().outputs.validate(second.outputs)
        Killed.outputs_of_second = dict(second._flat_outputs())
        second.close()


def test_outputs_that_a_killed_worker_attached_are_those_of_the_chain() -> None:
    _, node = run_get_node(Killed)
    assert node.is_finished_ok
    assert Killed.missing is None
    assert {label: output.value for label, output in Killed.outputs_of_second.items()} == {
        "answer": 42, "more__answers": 43
    }  # fmt: skip


class Workers:
    """Notes what workers are told of."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def continue_process(self, pk: int, **_: Any) -> None:
        """Tell them of a process."""
        self.told.append(pk)


@pytest.mark.parametrize("last", ["lost", "begun", "begins", "without checkpoint"])
def test_what_no_worker_was_told_of_is_handed_out_when_the_chain_is_taken_up(
    monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """As after a kill in the middle of a submission, which the last step alone can be lost in."""
    monkeypatch.setattr(once, "TAKE_UP_S", 0.0)
    _, node = run_get_node(Interrupted)
    waits, called = (child.node for child in Interrupted.called)
    if last == "begun":
        called.set_process_state(ProcessState.RUNNING)
    if last == "without checkpoint":
        called.delete_checkpoint()
    runner, workers = get_manager().get_runner(), Workers()
    monkeypatch.setattr(runner, "_controller", workers)
    Interrupted.checkpoint.unbundle(LoadSaveContext(runner=runner, loop=runner.loop, loader=get_object_loader()))
    if last == "begins":
        called.set_process_state(ProcessState.WAITING)
    runner.loop.run_until_complete(asyncio.sleep(0.05))
    assert workers.told == ([called.pk] if last == "lost" else [])
    assert orm.load_node(waits.pk).process_state == ProcessState.CREATED
    assert (orm.load_node(called.pk).process_state == ProcessState.EXCEPTED) == (last == "without checkpoint")
    said = "".join(log.message for log in orm.Log.collection.get_logs_for(node))
    assert (f"Child<{called.pk}> had not begun, and is handed out again" in said) == (last == "lost")
    assert (f"before Child<{called.pk}> had a checkpoint, so that it cannot begin" in said) == (called.is_excepted)


def test_a_run_that_was_played_goes_on_where_another_worker_takes_it_up() -> None:
    """From the checkpoint of its pause, which is the last one: AiiDA writes none when a process is played."""
    runner = get_manager().get_runner()
    process = instantiate_process(runner, Repeating)

    def taken_up() -> Any:
        found = AiiDAPersister().load_checkpoint(process.pid)
        return found.unbundle(LoadSaveContext(runner=runner, loop=runner.loop, loader=get_object_loader()))

    process.pause("a user paused it")
    process.close()
    assert process.node.paused
    second = taken_up()
    assert second.paused
    second.play()
    second.close()
    assert not second.node.paused
    third = taken_up()
    assert not third.paused
    third.close()
