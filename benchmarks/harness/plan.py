"""How long it takes: each program's scale for runs of a given length, and lengths and pairs that fit a given time."""
from . import catalog

SHORTEST = 1.5  # below that the start of the interpreter is much of a run
STANDARD = 5.0  # what docs/performance.md asks of figures that are quoted


class Pace:
    """Wall seconds of a program untraced: start + rate * scale, at least `least` (an application's smallest piece of work)."""

    def __init__(self, start, rate, least):
        self.start, self.rate, self.least = start, rate, least

    def scale(self, seconds):
        return round(max(0.1, (seconds - self.start) / self.rate), 2)

    def seconds(self, scale):
        return max(self.start + self.rate * scale, self.least if scale >= 1 else 0)


def calibrate(run):
    """A Pace out of two runs. `run(scale)` gives seconds."""
    first = run(1)
    again = 3.2 if first > 1.2 else 1 + 1.5 / first  # an application's pieces of work may be seconds long
    second = run(again)
    rate = (second - first) / (again - 1)
    if rate <= 0.1 * second / again:  # the machine was busy in the first run: take it as proportional
        rate = second / again
    return Pace(max(0.0, second - rate * again), rate, first if first > 1.2 else 0)


def turn_factor(modes):
    """How many untraced runs' time one turn takes."""
    return 1 + sum(catalog.FACTORS.get(mode, 1.05) for mode in modes)


def total(cells, paces, seconds, pairs):
    """Seconds for `cells`: [(name, modes)]."""
    return pairs * sum((paces[name].seconds(paces[name].scale(seconds)) + 0.05) * turn_factor(modes) for name, modes in cells)


def fit(cells, paces, seconds, pairs, budget):
    """(seconds, pairs) that fit the budget: shorter runs first, then fewer pairs, never below SHORTEST and 5."""
    for n in range(pairs, min(pairs, 5) - 1, -1):
        length = seconds
        while length > SHORTEST and total(cells, paces, length, n) > budget:
            length -= 0.1
        if total(cells, paces, length, n) <= budget:
            return round(length, 1), n
    return SHORTEST, min(pairs, 5)
