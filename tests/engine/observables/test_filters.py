"""The Fourier filter against numpy's FFT with zero padding, what it passes, its errors, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_difftre.engine.contract.filters import Filter
from aiida_difftre.engine.observables.filters import fourier_filter, hanning, independent_points

K = np.linspace(3.0, 13.0, 201)
WINDOW = (1.0, 3.0)
FILTER = fourier_filter(K, WINDOW, 1.0, 0.5)


def wave(distance: float) -> np.ndarray:
    return np.sin(2 * K * distance + 0.4) * np.exp(-0.01 * K**2)


def test_as_by_fast_fourier_transform() -> None:
    """exp(2ikR): the frequency of numpy's transform is R/π."""
    step, size = K[1] - K[0], 2**16
    values = wave(2.2) + 0.7 * wave(4.4) + 0.2 * wave(0.6)
    spectrum = np.fft.fft(values * hanning(K, 3.5, 12.5, 1.0), size)
    r = np.pi * np.fft.fftfreq(size, step)
    # Both signs of R hold the same of a real curve.
    expected = np.fft.ifft(spectrum * hanning(np.abs(r), *WINDOW, 0.5)).real[: len(K)]
    np.testing.assert_allclose(FILTER @ values, expected, atol=2e-4 * np.abs(expected).max())


def test_passes_what_is_in_the_window_alone() -> None:
    middle = slice(60, -60)
    np.testing.assert_allclose((FILTER @ wave(2.0))[middle], wave(2.0)[middle], atol=0.1)
    assert np.abs((FILTER @ wave(4.5))[middle]).max() < 0.03
    assert np.abs((FILTER @ (K - 8))[middle]).max() < 0.2


def test_tells_what_is_filtered_from_what_is_not() -> None:
    made = Filter(FILTER, "a test")
    values = wave(2.2) + wave(4.4)
    assert made.lost(np.round(FILTER @ values, 5)) < 1e-3
    assert made.lost(values) > 0.3
    assert made.lost(np.zeros_like(K)) == 0


def test_independent_points() -> None:
    """The filter holds as many numbers as it has singular values above a half, to within the tapers."""
    sizes = np.linalg.svd(FILTER, compute_uv=False)
    assert independent_points(K, WINDOW, 1.0) == pytest.approx(2 * 9 * 2 / np.pi + 1)
    assert np.sum(sizes > 0.5) == pytest.approx(independent_points(K, WINDOW, 1.0), abs=1)


@pytest.mark.parametrize(
    ("k", "window", "tapers", "message"),
    [
        (np.append(K, 13.2), WINDOW, (1.0, 0.5), r"13 and 13.2 1/Å are not 0.050\d+ apart"),
        (np.linspace(3, 4, 21), WINDOW, (1.0, 0.5), "no room for two tapers of 1 1/Å"),
        (K, (0.1, 3.0), (1.0, 0.5), "begin at 0.25 Å or above"),
        (K, (1.0, 1.3), (1.0, 0.5), "no room for tapers of 0.5 Å"),
        (np.linspace(3, 13, 11), WINDOW, (1.0, 0.5), "points of k 1 1/Å apart resolve distances up to 1.57 Å"),
    ],
)
def test_refusals(k: np.ndarray, window: tuple[float, float], tapers: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fourier_filter(k, window, *tapers)
