"""Path tables and the options of exafs: FEFF's formula at the shells, closed form between them, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine.contract.observables import ObservableRequest
from aiida_difftre.engine.contract.targets import Target
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.observables.filters import fourier_filter
from aiida_difftre.engine.observables.specs.absorption import PathTable, wave_numbers
from tests.fixtures.exafs import K, free_path, momentum, table, target_fields, wave

GRID = np.arange(3.0, 14.0, 0.05)


def test_at_a_shell_a_path_of_feff() -> None:
    made = PathTable.model_validate(table())
    shell = made.shells[1]
    distance = shell.distance
    k = K[10:-1]
    amplitude, phase = np.array(shell.amplitude)[10:-1], np.array(shell.phase)[10:-1]
    expected = amplitude / (k * distance**2) * np.sin(2 * k * distance + phase) * np.exp(-2 * distance / free_path(k))
    np.testing.assert_allclose(made.contribution("Cu", k, np.array([distance]))[:, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("distance", [2.2, 3.0, 5.0, 6.4])
def test_between_and_beyond_the_shells(distance: float) -> None:
    made = PathTable.model_validate(table(scatterers=("Cu", "Zn")))
    outgoing = wave("Zn", GRID, distance) * np.exp(2j * momentum(GRID) * distance - 2 * distance / free_path(GRID))
    expected = outgoing.imag / (GRID * distance**2)
    found = made.contribution("Zn", GRID, np.array([distance]))[:, 0]
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_a_positive_shift_lowers_the_wave_number() -> None:
    """13.6057 eV is 1/bohr²."""
    assert wave_numbers(np.array([5.0]), 13.605693)[0] == pytest.approx(np.sqrt(25 - 1 / 0.529177**2), rel=1e-6)


def changed(**fields: Any) -> dict[str, Any]:
    return {**table(), **fields}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, "version: must be 1"),
        ({"k": K[::-1].tolist()}, "k must increase strictly"),
        ({"momentum": [1.0, 2.0]}, r"momentum has 2 values for 59 values of k"),
        ({"cutoff": 5.9}, r"shell 4 at 5.9 Å lies beyond the cutoff of 5.9 Å"),
        ({"mean_free_path": [-1.0] * len(K)}, r"mean_free_path is -1.0 Å somewhere"),
        ({"shells": []}, "shells"),
        ({"shells": [table()["shells"][0]] * 2}, "two shells of Cu at the same distance"),
        ({"pickle": "x"}, "pickle"),
    ],
)
def test_refused_tables(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(PathTable, changed(**fields))


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        (np.arange(3, 25, 0.1), {}, "the k window 3 to 24.9 1/Å .* needs 2.25 to 25 1/Å; the path table spans 0 to 20"),
        (np.arange(1.5, 9, 0.1), {}, r"moved by an e0_shift of -15 to 15 eV, needs wave numbers below zero to 9.12"),
        (GRID, {"absorber": "Fe"}, "the path table is for the Cu K edge, the target for the Fe K edge"),
        (GRID, {"edge": "L3"}, "the path table is for the Cu K edge, the target for the Cu L3 edge"),
        (GRID, {"edge": "M"}, "option 'edge' of exafs is 'M'; known edges: K, L1, L2, L3"),
        (GRID, {"absorber": None}, "option 'absorber' of exafs is None"),
        (GRID, {"k_weight": 1.5}, "option 'k_weight' of exafs is 1.5; known powers of k: 0, 1, 2, 3"),
        (GRID, {"s02": [0.9, 0.8]}, r"option 's02' of exafs is \[0.9, 0.8\]"),
        (GRID, {"s02": 0.0}, "an amplitude factor is positive"),
        (GRID, {"e0_shift": "0"}, "option 'e0_shift' of exafs is '0'"),
        (GRID, {"r_range": 3.0}, "option 'r_range' of exafs is 3.0; give .low, high. in Å"),
        (GRID, {"r_range": [3.0, 1.0]}, "option 'r_range' of exafs is"),
        (GRID, {"r_range": [1.0, 3.0], "r_taper": 0}, "option 'r_taper' of exafs is 0; give a positive width"),
        (np.geomspace(3, 13, 200), {"r_range": [1.0, 3.0]}, "a Fourier filter needs equidistant k"),
        (GRID, {"paths": changed(version=7)}, "option 'paths.version' of exafs"),
    ],
)
def test_refused_targets(grid: np.ndarray, options: dict[str, Any], message: str) -> None:
    fields = target_fields(np.zeros(len(grid)), grid)
    fields["options"] |= options
    with pytest.raises(ValueError, match=message):
        validate(Target, fields)


def test_unit_follows_the_power_of_k() -> None:
    fields = target_fields(np.zeros(len(GRID)), GRID, k_weight=2)
    assert validate(Target, fields).unit == "1/angstrom^2"
    with pytest.raises(ValueError, match=r"is in '1'; observable 'exafs' comes in '1/angstrom\^2'"):
        validate(Target, {**fields, "unit": "1"})


def test_values_that_have_not_been_filtered() -> None:
    values = np.sin(5 * GRID) + np.sin(10 * GRID)
    window = {"r_range": [1.0, 4.0]}
    with pytest.raises(ValueError, match=r"have not gone through its filter: .* make the target with .* target import"):
        validate(Target, target_fields(values, GRID, **window))
    filtered = fourier_filter(GRID, (1.0, 4.0), 1.0, 0.5) @ values
    target = validate(Target, target_fields(filtered, GRID, **window))
    # What is read again is not filtered again.
    assert validate(Target, target.model_dump(mode="json")).values == filtered.tolist()


def test_only_observables_that_fit_take_a_measurement() -> None:
    values = np.sin(5 * GRID)
    request = validate(Target, target_fields(values, GRID)).request()
    assert request.measured is not None
    assert request.measured.values == values.tolist()
    assert validate(ObservableRequest, request.model_dump(mode="json")) == request
    with pytest.raises(ValueError, match="'pressure' fits nothing to a measurement"):
        validate(ObservableRequest, {"observable": "pressure", "measured": {"values": [1.0], "errors": [1.0]}})
