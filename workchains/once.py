"""Each step of a work chain is submitted once, also where the chain has to do it again."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import Process

from aiida_difftre.workchains.facts import CALLS


class SubmitOnceMixin:
    """A work chain that takes a step which it has submitted already, in place of submitting it again.

    A worker that is killed between a submission and its next checkpoint leaves a process that the chain has called and
    does not remember; and where RabbitMQ is restarted under running workers, two of them go on with the same chain. In
    both cases the same step comes round again. It is known by the label of its link, which is given once in a chain.
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
                if link.link_label == label and called.process_type == process.build_process_type():
                    self.report(f"{label} was submitted before, as {process.__name__}<{called.pk}>")  # type: ignore[attr-defined]
                    return called
        submitted: orm.ProcessNode = super().submit(process, inputs, **kwargs)  # type: ignore[misc] # of the chain
        return submitted
