"""The list of harmless rewrites. A rewrite is a function (graph, rng) that changes the graph without changing what it computes
and says whether it found a place to."""

REWRITES = {}


def rewrite(function):
    REWRITES[function.__name__] = function
    return function


def some(rng, sites, most=4):
    """Up to `most` of the sites, in random order."""
    sites = list(sites)
    return [sites[i] for i in rng.permutation(len(sites))[:most]]
