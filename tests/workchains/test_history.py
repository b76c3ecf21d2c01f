"""What a refinement decided, gathered from its nodes."""

import pytest
from aiida import orm
from aiida.common.links import LinkType
from plumpy.process_states import ProcessState

from aiida_difftre.workchains.history import decisions, update_label, updates_of


def update(refinement: orm.WorkChainNode, label: str, potential: orm.Data, exit_status: int) -> orm.WorkChainNode:
    """A call of a refinement."""
    node = orm.WorkChainNode()
    node.base.links.add_incoming(potential, LinkType.INPUT_WORK, "calc__potential")
    node.base.links.add_incoming(refinement, LinkType.CALL_WORK, label)
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(exit_status)
    return node.store()


@pytest.mark.usefixtures("aiida_profile_clean")
def test_decisions_are_those_of_the_updates_that_ended_well() -> None:
    refinement = orm.WorkChainNode().store()
    potentials = [orm.Int(number).store() for number in range(3)]
    update(refinement, "sample_000_solid", potentials[2], 0)
    update(refinement, update_label(0, 0), potentials[0], 360)
    done = [update(refinement, update_label(number, 1), potentials[number], 0) for number in (0, 1)]
    found = updates_of(refinement)
    assert {number: node.pk for number, node in found.items()} == {0: done[0].pk, 1: done[1].pk}
    made = decisions(
        4,
        {**found, 2: done[1]},
        sampled=potentials[2].uuid,
        settings_from=[(0, 100.0, 1.0), (2, 200.0, 0.5)],
        discarded=[1],
    )
    assert [item["iteration"] for item in made] == [0, 1, 2, 3]
    assert [item["potential"] for item in made] == [potentials[number].uuid for number in (0, 1, 1, 2)]
    assert [item["production_fs"] for item in made] == [100.0, 100.0, 200.0, 200.0]
    assert [item["learning_rate_scale"] for item in made] == [1.0, 1.0, 0.5, 0.5]
    assert [item["discarded"] for item in made] == [False, True, False, False]


def test_more_than_a_thousand_iterations_keep_their_numbers() -> None:
    assert [int(update_label(number, 12).split("_")[1]) for number in (7, 999, 1000)] == [7, 999, 1000]
