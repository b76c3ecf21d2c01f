"""Sine transforms against the Percus-Yevick hard spheres and argon's published tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aiida_difftre.engine.observables.scattering import (
    rdf_from_structure_factor,
    rdf_matrix,
    structure_factor_from_rdf,
    structure_factor_matrix,
)

PACKING = 0.35
DENSITY = 6 * PACKING / np.pi
"""Of spheres of unit diameter."""

SHARED = Path(__file__).parents[4] / "shared" / "data"


def hard_sphere_structure_factor(q: np.ndarray, packing: float = PACKING) -> np.ndarray:
    """Percus-Yevick: Wertheim, Phys. Rev. Lett. 10, 321 (1963), by the direct correlation function."""
    alpha = (1 + 2 * packing) ** 2 / (1 - packing) ** 4
    beta = -6 * packing * (1 + packing / 2) ** 2 / (1 - packing) ** 4
    gamma = packing * alpha / 2
    sin, cos = np.sin(q), np.cos(q)
    sums = alpha * (sin - q * cos) / q**3
    sums += beta * (2 * q * sin + (2 - q**2) * cos - 2) / q**4
    sums += gamma * (-(q**4) * cos + 4 * ((3 * q**2 - 6) * cos + (q**3 - 6 * q) * sin + 6)) / q**6
    return 1 / (1 + 24 * packing * sums)


def hard_sphere_rdf(r: np.ndarray, packing: float = PACKING) -> np.ndarray:
    """Percus-Yevick, shell by shell, from the Laplace transform of r g(r) (Wertheim 1963), by contour integrals."""
    length = np.polynomial.Polynomial([12 * packing * (1 + 2 * packing), 12 * packing * (1 + packing / 2)])
    cubic = np.polynomial.Polynomial(
        [-12 * packing * (1 + 2 * packing), 18 * packing**2, 6 * packing * (1 - packing), (1 - packing) ** 2]
    )
    radius = 1.2 * np.abs(cubic.roots()).max()
    s = radius * np.exp(2j * np.pi * np.arange(256) / 256)
    total = np.zeros_like(r)
    for shell in range(1, int(r.max()) + 1):
        inside = r > shell
        integrand = s**2 * length(s) * (-length(s)) ** (shell - 1) / cubic(s) ** shell
        total[inside] += (np.exp(np.outer(r[inside] - shell, s)) @ integrand).real / len(s)
    return total / (12 * packing * r)


def test_hard_spheres_at_contact() -> None:
    contact = hard_sphere_rdf(np.array([1 + 1e-9]))[0]
    assert contact == pytest.approx((1 + PACKING / 2) / (1 - PACKING) ** 2, rel=1e-5)


def test_structure_factor_of_hard_spheres() -> None:
    r = (np.arange(16000) + 0.5) * 5e-4
    q = np.linspace(0.5, 40, 200)
    found = structure_factor_from_rdf(r, hard_sphere_rdf(r), q, DENSITY, window="none")
    np.testing.assert_allclose(found, hard_sphere_structure_factor(q), atol=4e-3)


def test_rdf_of_hard_spheres() -> None:
    q = np.arange(1, 20001) * 0.02
    r = np.concatenate([np.linspace(0.2, 0.9, 20), np.linspace(1.1, 1.9, 30), np.linspace(2.1, 4, 40)])
    found = rdf_from_structure_factor(q, hard_sphere_structure_factor(q), r, DENSITY, window="lorch")
    np.testing.assert_allclose(found, hard_sphere_rdf(r), atol=4e-3)


def test_small_q_is_the_volume_integral() -> None:
    r = np.linspace(0.01, 8, 800)
    g = 1 - np.exp(-(r**2))
    integral = -(np.pi**1.5)
    for q, factor in ((0.0, 1.0), (1e-3, 1.0), (1.0, np.exp(-0.25))):
        found = structure_factor_from_rdf(r, g, [q], 0.1, window="none")[0]
        assert found == pytest.approx(1 + 0.1 * integral * factor, abs=1e-4)


def test_window_narrows_the_range() -> None:
    """Lorch's window is a factor of the integrand."""
    r, q = np.linspace(0.1, 5, 300), np.linspace(0.3, 9, 20)
    g = 1 + np.exp(-((r - 2) ** 2)) * np.cos(5 * r)
    windowed = 1 + (g - 1) * np.sin(np.pi * r / 5) / (np.pi * r / 5)
    expected = structure_factor_from_rdf(r, windowed, q, 0.05, window="none")
    np.testing.assert_allclose(structure_factor_from_rdf(r, g, q, 0.05), expected, atol=1e-12)


def test_errors_propagate_through_the_matrices() -> None:
    r, q = np.linspace(0.1, 5, 60), np.linspace(0.3, 9, 40)
    noise = np.random.default_rng(0).normal(scale=0.1, size=(20000, len(r)))
    found = noise @ structure_factor_matrix(r, q, 0.05).T
    np.testing.assert_allclose(
        found.std(0), np.sqrt((structure_factor_matrix(r, q, 0.05) ** 2).sum(1)) * 0.1, rtol=0.03
    )


def test_forth_and_back() -> None:
    r = np.linspace(0.1, 5, 400)
    wide = np.linspace(0.01, 60, 3000)
    g = np.exp(-((r - 2.5) ** 2) * 4)
    back = rdf_matrix(wide, r, 0.05, "none") @ (structure_factor_matrix(r, wide, 0.05, "none") @ g)
    np.testing.assert_allclose(back[5:], g[5:], atol=5e-4)


@pytest.mark.skipif(not SHARED.exists(), reason="measured tables are not here")
def test_argon_of_yarnell_1973() -> None:
    """The published S(q) and g(r) are each other's transforms, but for what the authors did to the ends."""
    s = np.loadtxt(SHARED / "argon_yarnell1973_sq_85K.dat")
    g = np.loadtxt(SHARED / "argon_yarnell1973_gr_85K.csv", delimiter=",", skiprows=1, encoding="utf-8-sig")
    found = structure_factor_from_rdf(g[:, 0], g[:, 1], s[:, 0], 0.02125, window="none")
    assert np.sqrt(np.mean((found - s[:, 1]) ** 2)) < 0.006
    outside = g[:, 0] > 3
    back = rdf_from_structure_factor(s[:, 0], s[:, 1], g[outside, 0], 0.02125, window="none")
    assert np.sqrt(np.mean((back - g[outside, 1]) ** 2)) < 0.006


@pytest.mark.parametrize(
    ("r", "g", "density", "window", "message"),
    [
        ([1.0, 2.0, 2.0], [1, 1, 1], 0.1, "none", "value 2 at index 2 follows 2"),
        ([1.0, 2.0], [1, 1, 1], 0.1, "none", r"g\(r\) has 3 values on a grid of 2"),
        ([1.0, 2.0], [1, np.nan], 0.1, "none", "nan at index 1"),
        ([1.0, 2.0], [1, 1], 0.0, "none", "density 0.0 must be positive"),
        ([1.0, 2.0], [1, 1], 0.1, "hann", "window 'hann' is unknown"),
        ([-1.0, 2.0], [1, 1], 0.1, "none", "none of them negative"),
    ],
)
def test_refused(r: list[float], g: list[float], density: float, window: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        structure_factor_from_rdf(r, g, [1.0], density, window=window)  # type: ignore[arg-type]
