"""Units: Å, eV, amu, fs and K inside; GPa for stress, pressure and stiffness wherever a person looks.

The constants are the exact SI values of 2019 and, for the atomic mass unit, CODATA 2018 (Tiesinga et al., Rev. Mod.
Phys. 93, 025010 (2021)).
"""

from __future__ import annotations

from typing import Final

ELEMENTARY_CHARGE: Final = 1.602176634e-19
"""Coulomb; exact."""

BOLTZMANN: Final = 1.380649e-23 / ELEMENTARY_CHARGE
"""eV/K; exact."""

ATOMIC_MASS: Final = 1.66053906660e-27
"""kg; CODATA 2018."""

COULOMB_CONSTANT: Final = 14.399645478
"""e²/(4πε₀), eV Å; CODATA 2018."""

EV_PER_A3_IN_GPA: Final = ELEMENTARY_CHARGE * 1e21
"""1 eV/Å³ = 160.2176634 GPa; exact."""

TIME_UNIT_IN_FS: Final = 1e5 * (ATOMIC_MASS / ELEMENTARY_CHARGE) ** 0.5
"""Å·sqrt(amu/eV), the unit of time that follows from Å, eV and amu, in fs (10.18 fs)."""

JOULE_PER_MOL: Final = ELEMENTARY_CHARGE * 6.02214076e23
"""1 eV per particle in J/mol (96485.33); exact."""

AMU_PER_A3_IN_KG_PER_M3: Final = ATOMIC_MASS * 1e30
"""1 amu/Å³ in kg/m³ (1660.539)."""
