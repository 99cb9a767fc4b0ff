"""Two hundred answers that were written to harm a verifier. `MARK` stands for a file that must never appear."""

from __future__ import annotations

MARK = "MARK"

_TOWERS = [
    *("^".join(["9"] * height) for height in range(3, 9)),
    *("^{".join(["9"] * height) + "}" * (height - 1) for height in range(3, 12)),
    *(f"{base}^{{99999999}}" for base in ("2", "x", "(1+x)", r"\pi", "1.5")),
    "9**9**9**9", "10^{10^{10^{100}}}", "2^{2^{2^{2^{2^{2}}}}}", "(((9^9)^9)^9)^9", "9^{-9^{9^9}}", r"e^{e^{e^{e^{e}}}}",
    "(((((9^{999})^{999})^{999})^{999})^{999})", "1e999999999", "1.0E+99999", "(1/9)^{9^{9}}",
]  # fmt: skip
_FACTORIALS = [
    "99999999!", "(10^8)!", "9!!!!!!", "((9!)!)!", "10000!!", "(9^9)!", r"\frac{1}{(10^9)!}", "x!!!!", "3000!" * 90,
    r"\binom{10^9}{5\cdot10^8}", r"\binom{99999}{50000}", "2999!/2998!" * 40, "+".join(f"1/{n}!" for n in range(2900, 2960)),
    r"\gcd(9^{9^9}, 3)", r"\operatorname{lcm}(" + ",".join(str(n) for n in range(1000, 1110)) + ")",
]  # fmt: skip
_OPERATORS = [
    r"\sum_{k=1}^{1000000000} k", r"\sum_{k=1}^{\infty} \frac{1}{k^2}", r"\prod_{k=1}^{10^9} k", r"\int_0^{10^9} e^{x^2} dx",
    r"\int\int\int\int x dx dx dx dx", r"\lim_{x\to\infty} x^x", r"\sum_{i=1}^{9^9}\sum_{j=1}^{9^9} ij", r"\oint x dx",
    r"\begin{pmatrix}" + "1 & " * 100 + r"1\end{pmatrix}^{999999}", r"\det" * 40, r"\begin{pmatrix}1\end{pmatrix}" * 15,
    r"\frac{d}{dx}" * 60, "|" * 500, r"\sum" * 100, r"\prod_{p} \frac{1}{1-p^{-2}}",
]  # fmt: skip
_NESTED = [
    *(left * depth + "1" + right * depth for left, right in ("()", "[]", "{}", ("\\{", "\\}")) for depth in (30, 200, 1000)),
    r"\frac{1}{" * 60 + "2" + "}" * 60, r"\sqrt{" * 35 + "2" + "}" * 35, r"\sqrt " * 80 + "2", r"\frac" * 100, "-" * 500 + "1",
    r"\text{" * 60 + "a" + "}" * 60, r"\left(" * 80 + "1" + r"\right)" * 80, "((" * 19 + "x" + ")^{2})" * 19, r"\boxed{" * 50 + "1" + "}" * 50,
    r"\frac{\frac{\frac{" * 12 + "1" + "}{2}}{3}}{4}" * 12, "(1,(1,(1,(1,(1,(1,(1,(1,(1,1)))))))))", r"\{\{\{\{\{\{\{\{1\}\}\}\}\}\}\}\}",
    "x^{" * 30 + "x" + "}" * 30, "a_{" * 40 + "a" + "}" * 40,
]  # fmt: skip
_LARGE = [unit * (10**6 // len(unit)) for unit in (
    "9", "x", "1,", "(", "{", "$", "\\boxed{", "\\boxed{1}", "9^", "é", "\n", " and ", "\\frac12", "#### ", "</think>",
)] + ["9" * 511, "x+" * 255 + "x", "1," * 255 + "1", "1/" * 255 + "1", "x" * 512, "((x))" * 100]  # fmt: skip
_UNICODE = [
    "\u0663", "\u200b" * 400 + "8", "\u202e8\u202c", "8\u0338", "\uff18" * 300, "\U0001d7d6", "\u2167", "\u00b2" * 400, "\u2044" * 50,
    "\ud800", "\x00" * 100, "\x01\x02" * 100, "\x03", "8\ufe0f\u20e3", "\u0435^{\u0445}", "\u221e\u221e", "\u00bd" * 200, "\u2211_{k}k",
    "a\u0301" * 200, "\ufdfa" * 60, "\u1e9b\u0323" * 200, "\u2028", "\u0085", "8\u00a0000\u00a0000", "\U000e0041" * 50,
]  # fmt: skip
_SHELL = f"touch {MARK}"
_CODE = [
    f"__import__('os').system('{_SHELL}')", f"open('{MARK}','w').write('x')", f"eval(\"open('{MARK}','w')\")", f"exec('open(\"{MARK}\",\"w\")')",
    f"(lambda: open('{MARK}','w'))()", f"[open('{MARK}','w') for _ in (1,)]", f"$({_SHELL})", f"`{_SHELL}`", f"; {_SHELL} ;", f"| {_SHELL}", f"&& {_SHELL}",
    rf"\input{{|{_SHELL}}}", rf"\write18{{{_SHELL}}}", rf"\immediate\write18{{{_SHELL}}}", rf"\openout1={MARK}", r"\include{/etc/passwd}", r"\def\x{\x\x}\x",
    r"\newcommand{\a}{\a\a}\a", r"\loop\iftrue\repeat", "{{7*7}}", "{% for x in y %}", "%s%s%s%n", "{0.__class__.__mro__}", "().__class__.__bases__[0].__subclasses__()",
    f"Symbol('x').__class__('{MARK}')", "import os", "os.system('ls')", "sys.exit(1)", "exit()", "quit()", "raise SystemExit", "assert False", "while True: pass",
    "'; DROP TABLE tasks; --", "<script>alert(1)</script>", "!!python/object/apply:os.system ['ls']", "cos\nsystem\n(S'ls'\ntR.", "yes\x00no", "../../../etc/passwd",
    "lambda x: x", "True == 1", "True", "None", "nan", "inf", "-inf", "NaN", "zoo", "oo-oo", r"\infty-\infty", r"\frac{0}{0}", r"\frac{1}{0}", "0^0", "0/0", "1/(1-1)",
]  # fmt: skip
_ALGEBRA = [
    "(" * 20 + "x+y+z+1" + ")^{999}" * 20, "((((x+1)^{999})^{999})^{999})^{999}", "x!+(x+1000000)!-(x+1000000)!", "x+9^{9^{9^{9^{9^x}}}}",
    r"\tan(\tan(\tan(\tan(9^{9^{x}}))))", r"\sin(10^{10^{x}})", r"\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x}}}}}}", r"\ln" * 30 + " x",
    "(x+1)^{999999}-(1+x)^{999999}+x", "x^{x^{x^{x^{x^x}}}}", r"\arcsin(\sin(\arcsin(\sin(10^{300}x))))", "(a+b+c+d+e+f+g+h)^{64}",
    r"\frac{x^{9999}-1}{x-1}", "x^{-999999999}", r"\sqrt[999999999]{x}", r"\log_{x}(\log_{x}(\log_{x}(x)))", "1/(x-x)", r"|" + "x" * 200 + "|",
    r"\cos(\cos(\cos(" + "x" * 100 + ")))", "i^{i^{i^{i^{i}}}}",
]  # fmt: skip

HOSTILE = [*_TOWERS, *_FACTORIALS, *_OPERATORS, *_NESTED, *_LARGE, *_UNICODE, *_CODE, *_ALGEBRA]
REFERENCES = ["8", r"\sqrt{2}", "x^2-1", "(1,2)", r"\int_0^1 x dx"]
