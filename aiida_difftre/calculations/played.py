"""A process that was paused and played stays played where another worker takes it up."""

from __future__ import annotations

from typing import Any


class StaysPlayedMixin:
    """A process that goes on from its checkpoint as its node has it, paused or not.

    AiiDA writes a checkpoint when a process is paused, and none when it is played. A worker that took it up from that
    checkpoint would hold it for ever, though its node is not paused.
    """

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        """Go on from a checkpoint.

        Args:
            saved_state: The checkpoint.
            load_context: What AiiDA loads it with.
        """
        super().load_instance_state(saved_state, load_context)  # type: ignore[misc] # of the process
        if self.paused and not self.node.paused:  # type: ignore[attr-defined]
            self.play()  # type: ignore[attr-defined]
