"""The list of faults. A fault is a function (graph, rng) that changes the graph at one suitable place and returns what it planted,
or None where nothing suits. Its name is the kind of the case, its cause one of the class names of the project's list of causes."""
import dataclasses

FAULTS = {}


@dataclasses.dataclass
class Planted:
    nodes: list      # names of the nodes that are wrong
    outputs: list    # names of the values that first come out wrong
    op: str
    cause: str = None  # only where it differs from the kind's usual cause


def fault(cause):
    def register(function):
        function.cause = cause
        FAULTS[function.__name__] = function
        return function
    return register


def pick(rng, sites):
    sites = list(sites)
    return sites[int(rng.integers(len(sites)))] if sites else None


def planted(*nodes, outputs=None, cause=None):
    """What stands wrong when these nodes do; the outputs default to the last node's first one."""
    return Planted([n.name for n in nodes], list(outputs) if outputs else [nodes[-1].output[0]], nodes[-1].op_type, cause)
