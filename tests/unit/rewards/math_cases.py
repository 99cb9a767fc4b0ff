r"""Pairs of answer and reference with the right verdict. The bulk stands in math_cases.tsv, where LaTeX needs no
escapes."""

from __future__ import annotations

from pathlib import Path

# What math-verify 0.9.0 grants or refuses wrongly, as measured: (reference, answer).
MATH_VERIFY_GRANTS_WRONGLY = [
    (r"$\frac{1}{2004!}$", r"$\frac{1}{2006!}$"),
    (r"$\frac{1}{2^{99}}$", r"$\frac{1}{2^{98}}$"),
    (r"$0.0000001$", r"$0.0000002$"),
    (r"$1-\frac{1}{\mathrm e}$", r"$1+\frac{1}{\mathrm e}$"),
    (r"$1, 2, \ldots, n$", r"$1, 3, 5, \ldots, 2n-1$"),
    ("3*x-1*y+13=0", "2*x+5*y-1=0"),
    ("$f(x)=0$", r"$\forall x, f(x)=0$"),
    ("$4$", r"$4\sqrt(2)$"),
    ("$10$", r"$10\%$"),
    (r"$10\%$", "$10$"),
    (r"$\frac13$", r"$\int_0^1x^2dx$"),
    ("$55$", r"$\sum_{k=1}^{10}k$"),
    ("$10$", r"$\binom52$"),
    ("$11_2$", "$11$"),
    ("$(1,2)$", r"$\{1,2\}$"),
    (r"$5\text{ m}$", r"$5\text{ s}$"),
    ("$2$", r"so $2$ thus \boxed{}"),
    ("2", r"$\boxed{1}$ and $\boxed{2}$"),
    ("2", "1,2"),
]
MATH_VERIFY_REFUSES_WRONGLY = [
    (r"\dfrac{1}{2}", r"\boxed{\frac{1}{2}}"),
    (r"$\sqrt{\frac{1}{n}}$", r"$\frac{1}{\sqrt{n}}$"),
    (r"$\frac{\pi}{2}$", "$1.5708$"),
    ("$(1,3)$", "$1<x<3$"),
    ("$1<x<3$", "$(1,3)$"),
]


def cases(verdict: str) -> list[tuple[str, str]]:
    """(answer, reference) of every line with this verdict: 'equal' or 'different'."""
    lines = Path(__file__).with_name("math_cases.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(answer, reference) for found, answer, reference in rows if found == verdict]
