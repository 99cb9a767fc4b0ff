"""Claims with roots, pi or unknowns, checked with sympy. Runs only inside a sandbox worker.

The worker receives the tree that `arithmetic` parsed, never text: sympy's own parser executes Python.
"""

from __future__ import annotations

from fractions import Fraction

import sympy

from prm.arithmetic import Apply, Node, Number, Symbol, symbols_of
from prm.claims import Claim

_DIGITS = 50


def check(claim: Claim) -> bool | None:
    """Whether a claim holds. None when it does not, but contains unknowns: then it may be an equation to be solved."""
    difference = _expression(claim.left) - _expression(claim.right)
    if symbols_of(claim.left):
        return True if sympy.simplify(difference) == 0 else None
    if difference.has(sympy.zoo, sympy.nan):
        return False
    tolerance = sympy.Integer(0)
    if claim.relation == "\u2248" and isinstance(claim.right, Number):
        tolerance = sympy.Rational(1, 2 * 10**claim.right.decimals)
    if abs(sympy.N(difference, _DIGITS)) > tolerance + sympy.Float(10) ** (10 - _DIGITS):
        return False
    return True if tolerance else bool(sympy.simplify(difference) == 0)


def _expression(node: Node) -> sympy.Expr:
    if isinstance(node, Number):
        return _rational(node.value)
    if isinstance(node, Symbol):
        return sympy.pi if node.name == "pi" else sympy.Symbol(node.name)
    return _apply(node)


def _apply(node: Apply) -> sympy.Expr:
    values = [_expression(argument) for argument in node.arguments]
    match node.operator:
        case "+":
            return values[0] + values[1]
        case "-":
            return values[0] - values[1]
        case "*":
            return values[0] * values[1]
        case "/":
            return values[0] / values[1]
        case "^":
            return values[0] ** values[1]
        case "neg":
            return -values[0]
        case "%":
            return values[0] / 100
        case "!":
            return sympy.factorial(values[0])
        case "sqrt":
            return sympy.sqrt(values[0])


def _rational(value: Fraction) -> sympy.Rational:
    return sympy.Rational(value.numerator, value.denominator)
