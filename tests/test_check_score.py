#!/usr/bin/env python3
"""The bars of check_score.py hold and break where they should."""

import unittest

from check_score import failures

GOOD = """\
route same     hit@1 20/20
cause scale          4/4
faults 80  hit@1 98.8%  hit@3 100.0%  cause 95.0%  missed 0  nodes 2
two faults 6  both named 83.3%
benign 35  false 0   broken 0   seconds 0.130 median, 0.90 most
"""


class Bars(unittest.TestCase):
    def test_a_score_on_the_bars_passes(self):
        self.assertEqual(failures(GOOD), [])

    def test_each_bar_breaks(self):
        cases = [
            ("broken 0", "broken 1", "broken"),
            ("false 0", "false 2", "false"),
            ("missed 0", "missed 1", "missed"),
            ("hit@1 98.8%", "hit@1 97.9%", "hit@1"),
            ("cause 95.0%", "cause 94.9%", "cause"),
            ("both named 83.3%", "both named 66.7%", "both named"),
        ]
        for old, new, name in cases:
            with self.subTest(name):
                wrong = failures(GOOD.replace(old, new))
                self.assertEqual(len(wrong), 1)
                self.assertTrue(wrong[0].startswith(name))

    def test_a_score_that_ended_early_fails_every_bar(self):
        self.assertEqual(len(failures("")), 6)


if __name__ == "__main__":
    unittest.main()
