"""A quantity with its unit: "9.81 m/s^2" equals "981 cm/s^2", and 9.81 m/s does not.

ponder rewards check examples/units.py:verify --data examples/units.jsonl
"""

import re
from math import isclose

from sympy.physics import units as u

from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.plugins.contract import declare
from rollout.schema import Outcome, Status

# Names are looked up here and nowhere else: an answer is hostile text, and is never evaluated.
UNITS = {
    "m": u.meter, "km": 1000 * u.meter, "cm": u.meter / 100, "mm": u.meter / 1000, "s": u.second, "ms": u.second / 1000,
    "min": u.minute, "h": u.hour, "kg": u.kilogram, "g": u.gram, "N": u.newton, "J": u.joule, "kJ": 1000 * u.joule,
    "W": u.watt, "kW": 1000 * u.watt, "Pa": u.pascal, "kPa": 1000 * u.pascal, "A": u.ampere, "V": u.volt, "K": u.kelvin,
    "Hz": u.hertz, "C": u.coulomb,
}  # fmt: skip
BASE = (u.kilogram, u.meter, u.second, u.ampere, u.kelvin)
QUANTITY = re.compile(r"([-+]?\d{1,15}(?:\.\d{1,15})?(?:[eE][-+]?\d{1,2})?)\s*([A-Za-z][A-Za-z0-9^*/·() -]{0,60})?")
FACTOR = re.compile(r"([*/·]?)\s*([A-Za-z]+)(?:\^?\(?(-?\d)\)?)?\s*")
RELATIVE_TOLERANCE = 0.01  # school answers are rounded to three digits


def read(text: str) -> tuple[float, tuple[float, ...]]:
    """Value in base units and the powers of the base units. Raises ValueError for what is no quantity."""
    found = QUANTITY.fullmatch(text.strip().rstrip("."))
    if found is None:
        raise ValueError(f"not a quantity: {text[:40]!r}")
    product, place = u.meter / u.meter, 0
    unit = (found[2] or "").strip()
    while place < len(unit):
        factor = FACTOR.match(unit, place)
        if factor is None or factor[2] not in UNITS:
            raise ValueError(f"unknown unit {unit[place:][:20]!r}")
        power = int(factor[3] or 1)
        product *= UNITS[factor[2]] ** (-power if factor[1] == "/" else power)
        place = factor.end()
    scale, powers = u.convert_to(product, BASE).as_coeff_Mul()
    exponents = powers.as_powers_dict()
    return float(found[1]) * float(scale), tuple(float(exponents.get(base, 0)) for base in BASE)


@declare(reads_thinking=False)
def verify(sample: Sample) -> Outcome:
    try:
        value, dimension = read(sample.reference)
    except ValueError as error:
        return unjudged(Status.BAD_REFERENCE, str(error))
    try:
        answer, answer_dimension = read(sample.answer)
    except ValueError as error:
        return unparseable(str(error))
    if answer_dimension != dimension:
        return judged(0.0, "another dimension")
    return judged(float(isclose(answer, value, rel_tol=RELATIVE_TOLERANCE)))
