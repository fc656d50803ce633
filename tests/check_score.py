#!/usr/bin/env python3
"""Reads what score.py writes, shows it, and fails where a bar is not met.

usage: score.py BINARY CASES | check_score.py

The bars: nothing broken, nothing harmless called different, no fault missed, the first culprit right in 98 % of the
pairs with one fault, its cause in 95 %, both faults named in 5 of 6 pairs with two. A line that is not there is a
failure too: a score that ended early must not pass.
"""

import re
import sys

NUMBER = r"([0-9.]+)"
# What is measured: where it stands in the text, and the test it has to pass.
BARS = {
    "broken": (rf"\bbroken {NUMBER}", "0 at most", lambda x: x <= 0),
    "false": (rf"\bfalse {NUMBER}", "0 at most", lambda x: x <= 0),
    "missed": (rf"\bmissed {NUMBER}", "0 at most", lambda x: x <= 0),
    "hit@1": (rf"\bhit@1 {NUMBER}%", "98 % at least", lambda x: x >= 98),
    "cause": (rf"\bcause {NUMBER}%", "95 % at least", lambda x: x >= 95),
    # 5 of 6 is written as 83.3 %.
    "both named": (rf"\bboth named {NUMBER}%", "5 of 6 at least", lambda x: x >= 83.3),
}


def failures(text):
    """Each bar that is not met, as a sentence."""
    out = []
    for name, (pattern, wanted, passes) in BARS.items():
        found = re.findall(pattern, text)
        if not found:
            out.append(f"{name}: the score does not say it, expected {wanted}")
        elif not passes(float(found[-1])):
            out.append(f"{name}: {found[-1]}, expected {wanted}")
    return out


def main():
    lines = []
    for line in sys.stdin:
        print(line, end="", flush=True)
        lines.append(line)
    wrong = failures("".join(lines))
    for sentence in wrong:
        print("BELOW THE BAR", sentence)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
