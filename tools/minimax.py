"""Prints the polynomial coefficients of crates/ops/src/math/{single,double}.rs, highest power first.

Minimax fits by the Remez exchange in 60 digits. For f32 the coefficients are rounded one after the other from the
lowest power up and the rest is fitted again each time, which keeps what rounding would lose; for f64 that is not worth
its instability, and they are rounded to nearest. Needs mpmath and NumPy.

    python tools/minimax.py single|double
"""

import sys

import numpy as np
from mpmath import cos, erf, erfc, exp, log, lu_solve, matrix, mp, mpf, pi, sqrt, tanh

mp.dps = 60
# Keeps weights and quotients off 0.
TINY = mpf(10) ** -25


def remez(f, weight, a, b, powers, fixed, points, rounds):
    """Coefficients that minimise the largest |weight (f - polynomial)| on [a, b], with those in `fixed` given."""
    n = len(powers)
    grid = [a + (b - a) * mpf(i) / points for i in range(points + 1)]
    rest = lambda x: f(x) - sum(c * x**p for p, c in fixed)
    table = [(rest(x), weight(x), [x**p for p in powers]) for x in grid]
    nodes = [(a + b) / 2 + (b - a) / 2 * cos(pi * (n - i) / n) for i in range(n + 1)]
    for _ in range(rounds):
        system, right = matrix(n + 1, n + 1), matrix(n + 1, 1)
        for i, x in enumerate(nodes):
            for j, p in enumerate(powers):
                system[i, j] = x**p
            system[i, n] = (-1) ** i / weight(x)
            right[i] = rest(x)
        solution = lu_solve(system, right)
        c = [solution[i] for i in range(n)]
        error = [w * (y - sum(ci * pi_ for ci, pi_ in zip(c, row))) for y, w, row in table]
        runs = [[0]]
        for i in range(1, len(error)):
            if (error[i] > 0) == (error[runs[-1][-1]] > 0):
                runs[-1].append(i)
            else:
                runs.append([i])
        extrema = [max(run, key=lambda i: abs(error[i])) for run in runs]
        largest = max(abs(e) for e in error)
        if len(extrema) < n + 1:
            break
        while len(extrema) > n + 1:
            extrema.pop(0 if abs(error[extrema[0]]) < abs(error[extrema[-1]]) else -1)
        if abs(abs(solution[n]) - largest) < largest * mpf("0.02"):
            break
        nodes = [grid[i] for i in extrema]
    return c


def fit(name, f, weight, a, b, terms, single):
    a, b = mpf(a), mpf(b)
    if single:
        fixed, rest = [], list(range(terms))
        while rest:
            c = remez(f, weight, a, b, rest, fixed, 600, 6)
            fixed.append((rest.pop(0), mpf(float(np.float32(float(c[0]))))))
    else:
        c = remez(f, weight, a, b, list(range(terms)), [], 1200, 12)
        fixed = [(p, mpf(float(v))) for p, v in enumerate(c)]
    grid = (a + (b - a) * mpf(i) / 1500 for i in range(1501))
    error = max(abs(weight(x) * (f(x) - sum(c * x**p for p, c in fixed))) for x in grid)
    print(f"{name}: largest weighted error 2^{mp.nstr(log(error, 2), 4)}")
    for _, c in reversed(fixed):
        print("   ", np.float32(float(c)) if single else repr(float(c)))


def exp_tail(r):
    return (exp(r) - 1 - r) / r**2 if abs(r) > TINY else mpf(1) / 2 + r / 6


def ln_tail(z):
    s = sqrt(z)
    return (log((1 + s) / (1 - s)) / s - 2) / z if z > TINY else mpf(2) / 3


def tanh_tail(z):
    x = sqrt(z)
    return (tanh(x) - x) / x**3 if z > TINY else -mpf(1) / 3


def erf_tail(z):
    x = sqrt(z)
    return erf(x) / x - 1 if z > TINY else 2 / sqrt(pi) - 1


def main(single):
    half = log(2) / 2 * mpf("1.001")
    widest = ((sqrt(2) - 1) / (sqrt(2) + 1)) ** 2 * mpf("1.01")
    from_, to = (mpf("0.921875"), mpf("3.93")) if single else (mpf(1), mpf("5.95"))
    relative = lambda r: r**2 * exp(-r) + TINY
    fit("exp_tail", exp_tail, relative, -half, half, 5 if single else 11, single)
    fit("ln_tail", ln_tail, lambda z: z + TINY, 0, widest, 4 if single else 7, single)
    if single:
        fit("tanh_tail", tanh_tail, lambda z: z + TINY, 0, mpf("0.625") ** 2, 6, single)
    fit("erf_tail", erf_tail, lambda z: 1, 0, 1, 7 if single else 14, single)
    shifted = lambda t: -log(erfc(t + 2))
    fit("minus_ln_erfc", shifted, lambda t: erfc(t + 2), from_ - 2, to - 2, 8 if single else 19, single)


if __name__ == "__main__":
    main({"single": True, "double": False}[sys.argv[1]])
