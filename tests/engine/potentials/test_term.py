"""What a term is: defaults of the base class, and the refusal of what does not inherit from it."""

from __future__ import annotations

import pytest

from aiida_difftre.engine.errors import EngineError, ExitStatus
from aiida_difftre.engine.potentials.term import Kind
from tests.fixtures.engine import build, network, stillinger_weber


def test_kinds(plugin_term: str) -> None:
    assert build(plugin_term, ["Ar"], 3.0, height=1.0).terms[0].kind is Kind.PAIRWISE
    assert build("external_spline", ["Ar"], 3.0).terms[0].kind is Kind.EXTERNAL
    assert [network(rank=rank)[0].terms[0].kind for rank in (0, 1)] == [Kind.RADIAL, Kind.GENERAL]


def test_a_term_without_buffers_keeps_its_parameters() -> None:
    potential, parameters = stillinger_weber()
    term, values = potential.terms[0], parameters["terms"]["0_stillinger_weber"]
    assert term.kind is Kind.GENERAL
    assert term.buffers == ()
    assert term.standardise(values, None) is values


@pytest.mark.usefixtures("plugin_term")
def test_a_term_that_does_not_inherit_is_refused() -> None:
    with pytest.raises(EngineError, match=r"'stranger'.*does not inherit from .*term\.Term; let it") as caught:
        build("stranger", ["Ar"], 3.0)
    assert caught.value.status == ExitStatus.INVALID_INPUT
