"""Each step of a work chain is done once, also where the chain has to do it again; and none is forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import Process, ProcessState

from aiida_difftre.calculations.played import StaysPlayedMixin
from aiida_difftre.workchains.facts import CALLS

STATE = "attributes.process_state"

NESTED_LABEL, NESTED_PORT = "__", "."
"""Between a namespace and a port in it: in the label of a link, and where an output is attached."""

NOT_BEGUN = (None, ProcessState.CREATED)
"""States of a process that no worker has begun."""

KILLED = "its worker was killed before"
"""How the exception of a process begins that has no checkpoint."""

SUBMISSION_S = 2.0
"""Longer than a submission takes, from the node to its checkpoint."""

TAKE_UP_S = 30.0
"""Time that a called process has to begin after its work chain was taken up, before it is handed out again."""


class SubmitOnceMixin(StaysPlayedMixin):
    """A work chain that takes a step which it has submitted already, in place of submitting it again.

    A worker that is killed between a submission and its next checkpoint leaves a process that the chain has called and
    does not remember; and where RabbitMQ is restarted under running workers, two of them go on with the same chain. In
    both cases the same step comes round again. It is known by the label of its link, which is given once in a chain.
    One that was killed so early that the process has no checkpoint submits it afresh.

    A worker that is killed in the middle of a submission leaves a process that no worker was ever told of, for which
    the chain would wait for ever. It is the last one that the chain called: where that has not begun some time after
    the chain was taken up, it is handed out again.

    A worker that is killed between the outputs of a chain and the next checkpoint leaves links that the chain does not
    remember; AiiDA's restart chains pass over these and then miss an output. They are taken as the chain's.
    """

    def submit(self, process: type[Process], inputs: dict[str, Any] | None = None, **kwargs: Any) -> orm.ProcessNode:
        """Submit a process, or find the one of this kind that was called with the same label of its link.

        Args:
            process: Class of the process.
            inputs: Its inputs; or as keywords.
            **kwargs: Inputs of the process.

        Returns:
            The node of the process.
        """
        label = (kwargs if inputs is None else inputs).get("metadata", {}).get("call_link_label")
        node: orm.ProcessNode = self.node  # type: ignore[attr-defined] # of the chain
        if label is not None:
            links = node.base.links.get_outgoing(orm.ProcessNode, link_type=CALLS, link_label_filter=label)
            for link in links.all():
                called: Any = link.node
                # The filter takes an underscore for any character.
                if link.link_label != label or called.process_type != process.build_process_type():
                    continue
                if _never_begins(called):
                    self._bury(called)
                if (called.exception or "").startswith(KILLED):
                    continue
                self.report(f"{label} was submitted before, as {process.__name__}<{called.pk}>")  # type: ignore[attr-defined]
                return called
        submitted: orm.ProcessNode = super().submit(process, inputs, **kwargs)  # type: ignore[misc] # of the chain
        return submitted

    def compute(self, function: Callable[..., Any], label: str, *args: Any, **inputs: Any) -> Any:
        """Call a calculation function, or find what it made when it was called with the same label of its link.

        Args:
            function: The calculation function.
            label: Label of the link, given once in a chain.
            *args: Its inputs.
            **inputs: Its inputs by name.

        Returns:
            What it returned: a node, or nodes by name.
        """
        node: orm.ProcessNode = self.node  # type: ignore[attr-defined] # of the chain
        links = node.base.links.get_outgoing(orm.CalcFunctionNode, link_type=CALLS, link_label_filter=label)
        for link in links.all():
            called: Any = link.node
            # The filter takes an underscore for any character.
            if link.link_label == label and called.process_label == function.__name__ and called.is_finished_ok:
                created = called.base.links.get_outgoing(link_type=LinkType.CREATE).all()
                # In the order in which it returned them, on which a dataset and its split depend.
                made = {one.link_label: one.node for one in sorted(created, key=lambda one: one.node.pk)}
                return made.get(Process.SINGLE_OUTPUT_LINKNAME, made)
        return function(*args, **inputs, metadata={"call_link_label": label})

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        """Go on from a checkpoint, and look after what was called last before it and has not begun.

        Args:
            saved_state: The checkpoint.
            load_context: What AiiDA loads it with.
        """
        super().load_instance_state(saved_state, load_context)
        self._remember_outputs()
        query = orm.QueryBuilder()
        query.append(orm.ProcessNode, filters={"id": self.node.pk}, tag="caller")  # type: ignore[attr-defined]
        calls = {"type": {"in": [kind.value for kind in CALLS]}}
        query.append(orm.ProcessNode, with_incoming="caller", edge_filters=calls, project=["id", STATE], tag="called")
        last = query.order_by({"called": {"id": "desc"}}).first()
        if last and last[1] in (None, ProcessState.CREATED.value) and self.runner.controller is not None:  # type: ignore[attr-defined]
            self.loop.call_later(TAKE_UP_S, self._hand_out, last[0])  # type: ignore[attr-defined]

    def _remember_outputs(self) -> None:
        """Take outputs that the node has as those of the chain."""
        returned = self.node.base.links.get_outgoing(orm.Data, link_type=LinkType.RETURN)  # type: ignore[attr-defined]
        for link in returned.all():
            with contextlib.suppress(ValueError):  # of an earlier version of the chain; its link stays
                self.out(link.link_label.replace(NESTED_LABEL, NESTED_PORT), link.node)  # type: ignore[attr-defined]

    def _hand_out(self, pk: int) -> None:
        """Tell the workers of a called process that still has not begun; what has no checkpoint cannot begin."""
        called: Any = orm.load_node(pk)
        if called.process_state not in NOT_BEGUN:
            return
        if called.checkpoint is None:
            self._bury(called)
        else:
            self.runner.controller.continue_process(pk, nowait=False, no_reply=True)  # type: ignore[attr-defined]
            self.report(f"{called.process_label}<{pk}> had not begun, and is handed out again")  # type: ignore[attr-defined]

    def _bury(self, called: Any) -> None:
        """Mark a process as excepted that has no checkpoint to begin from."""
        message = f"{KILLED} {called.process_label}<{called.pk}> had a checkpoint"
        called.set_exception(message)
        called.set_process_state(ProcessState.EXCEPTED)
        called.seal()
        self.report(f"{message}, so that it cannot begin")  # type: ignore[attr-defined]


def _never_begins(called: Any) -> bool:
    """Whether a process has no checkpoint to begin from, and is not just being submitted."""
    age = (datetime.now().astimezone() - called.ctime).total_seconds()
    return called.process_state in NOT_BEGUN and called.checkpoint is None and age > SUBMISSION_S
