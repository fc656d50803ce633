"""Makes the cases and writes cases/<name>/{b.onnx, truth.json}."""
import json
import pathlib

import numpy as np
import onnx

from .benign import REWRITES
from .export import seed_of, strip
from .faults import FAULTS
from .graph import Graph
from .runtime import LEVELS, optimise, output_difference, relative_difference, run, run_all
from .truth import Known, layout_chain, locate

LEAST_AT_OUTPUT = 1e-5   # below this a fault is no fault that anybody could ask for
LEAST_IN_PLACE = 5e-5    # below this the planted tensor cannot be told from rounding
MOST_WHEN_HARMLESS = 2e-4
TRIES = 6
ROUTES = ("same", "opt", "cross", "crossopt")


class Network:
    def __init__(self, name, models, inputs, out):
        self.name, self.models, self.inputs, self.out = name, models, inputs, pathlib.Path(out)
        self.values = {b: {**inputs, **run_all(m, inputs)} for b, m in models.items()}
        self.outputs = {b: run(m, inputs) for b, m in models.items()}
        self._optimised, self._rounding = {}, {}

    def graph(self, base):
        return Graph(self.models[base], self.values[base])

    def other(self, base):
        return next((b for b in self.models if b != base), None)

    def optimised(self, base, level):
        """The clean model after the optimiser, and all its values."""
        if (base, level) not in self._optimised:
            model = optimise(self.models[base], level)
            self._optimised[base, level] = model, run_all(model, self.inputs)
        return self._optimised[base, level]

    def rounding(self, base):
        """By how much the clean model's outputs move when the optimiser regroups its sums."""
        if base not in self._rounding:
            self._rounding[base] = max(output_difference(self.outputs[base], run(self.optimised(base, level)[0], self.inputs)) for level in LEVELS)
        return self._rounding[base]

    def write(self, case, model, truth, a):
        folder = self.out / "cases" / case
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(strip(model), folder / "b.onnx")
        head = {"a": f"../../models/{self.name}/{a}.onnx", "b": "b.onnx", "inputs": f"../../models/{self.name}/inputs.npz"}
        (folder / "truth.json").write_text(json.dumps({**head, **truth}, indent=1) + "\n")


def _plant(network, base, kind, rng, graph=None):
    """One fault in a copy of the model; None if nothing suits or the result does not run."""
    g = graph or network.graph(base)
    made = FAULTS[kind](g, rng)
    if made is None:
        return None
    try:
        g.sort()
        values = {**network.inputs, **run_all(g.model, network.inputs)}
    except Exception:  # the change made a model that is not valid here; another place may do
        return None
    return g, made, values


def _shows_in_place(network, base, made, values):
    clean = network.values[base]
    return any(name not in clean or name not in values or relative_difference(clean[name], values[name]) > LEAST_IN_PLACE for name in made.outputs)


def _names(model, names):
    have = {n.name for n in model.graph.node}
    return sorted(n for n in set(names) if n in have)


def _producers(model, names):
    return [n.name for n in model.graph.node if n.name and set(n.output) & set(names)]


def _side_b(network, base, made, mutated, values, final, level):
    if level is None:
        return sorted(layout_chain(final, made.outputs)), _names(final, made.nodes), True
    clean, clean_values = network.optimised(base, level)
    names, kept = locate(mutated, values, final, run_all(final, network.inputs), made, Known(network.values[base], clean_values))
    nodes = _names(final, made.nodes)
    if not kept or not nodes:
        nodes = sorted({*nodes, *_producers(final, names)})
    return sorted(names), nodes, kept


def _side_a(network, base, made, route):
    """The same names in the file of A where A is the base itself; nothing where A is the other exporter's."""
    if route not in ("same", "opt"):
        return [], []
    model = network.models[base]
    return sorted(layout_chain(model, made.outputs)), _names(model, made.nodes)


def _routes(network, first):
    """All routes that the network has, from the one whose turn it is."""
    turned = [ROUTES[(first + k) % len(ROUTES)] for k in range(len(ROUTES))]
    return [r for r in turned if "cross" not in r or len(network.models) == 2]


def fault_case(network, kind, number, routes, level):
    """The first of the routes by which the fault comes to something; where it is planted does not depend on the route."""
    case = f"{network.name}-{kind}-{number}"
    bases, planted = list(network.models), {}
    for route in routes:
        for attempt in range(TRIES):
            rng = np.random.default_rng(seed_of(case, attempt))
            base = bases[(int(rng.integers(2)) + attempt) % len(bases)]
            if attempt not in planted:
                planted[attempt] = _plant(network, base, kind, rng)
            if planted[attempt] is not None and _fault_by(network, case, kind, base, planted[attempt], route, level):
                return case
    return None


def _fault_by(network, case, kind, base, planted, route, level):
    g, made, values = planted
    a = base if route in ("same", "opt") else network.other(base)
    try:
        final = optimise(g.model, level) if "opt" in route else g.model
        got = run(final, network.inputs)
        difference = output_difference(network.outputs[a], got)
        # the optimiser takes some faults out again, such as a cast to a narrower type and back: then only rounding is left
        least = max(LEAST_AT_OUTPUT, 2 * network.rounding(base)) if "opt" in route else LEAST_AT_OUTPUT
    except Exception:
        return False
    if difference < least or not _shows_in_place(network, base, made, values):
        return False
    b_outputs, b_nodes, kept = _side_b(network, base, made, g.model, values, final, level if "opt" in route else None)
    if not b_outputs:
        return False
    a_outputs, a_nodes = _side_a(network, base, made, route)
    truth = {"kind": "fault", "mutation": kind, "cause": made.cause or FAULTS[kind].cause, "op": made.op, "route": route, "base": base, "output_rel_diff": difference,
             "a_outputs": a_outputs, "b_outputs": b_outputs, "a_nodes": a_nodes, "b_nodes": b_nodes}
    if "opt" in route:
        truth["level"] = level
    network.write(case, final, truth, a)
    return True


def two_case(network, kinds, number, route):
    """Two faults, planted one after the other, at least a quarter of the graph apart; each must show on its own."""
    case = f"{network.name}-two-{number}"
    bases = list(network.models)
    for attempt in range(TRIES):
        rng = np.random.default_rng(seed_of(case, attempt))
        base = bases[int(rng.integers(len(bases)))]
        a = base if route == "same" else network.other(base)
        alone = []
        for k, kind in enumerate(kinds):
            single = _plant(network, base, kind, np.random.default_rng(seed_of(case, attempt, k)))
            if single and _shows_in_place(network, base, single[1], single[2]):
                got = {o: single[2][o] for o in network.outputs[base]}
                if LEAST_AT_OUTPUT <= output_difference(network.outputs[base], got) < 9:
                    alone.append(single)
        if len(alone) < 2:
            continue
        places = [min(g.position(n) for n in g.nodes if n.name in made.nodes) / len(g.nodes) for g, made, _ in alone]
        if abs(places[0] - places[1]) < 0.25:
            continue
        g = network.graph(base)
        both = [FAULTS[kind](g, np.random.default_rng(seed_of(case, attempt, k))) for k, kind in enumerate(kinds)]
        g.sort()
        if None in both or set(both[0].outputs) & set(both[1].outputs):
            continue
        try:
            difference = output_difference(network.outputs[a], run(g.model, network.inputs))
        except Exception:
            continue
        faults = []
        for kind, made in zip(kinds, both):
            names = sorted(layout_chain(g.model, made.outputs))
            a_outputs, a_nodes = _side_a(network, base, made, route)
            faults.append({"cause": made.cause or FAULTS[kind].cause, "b_outputs": names, "b_nodes": _names(g.model, made.nodes), "a_outputs": a_outputs, "a_nodes": a_nodes})
        network.write(case, g.model, {"kind": "two", "mutation": "+".join(kinds), "route": route, "base": base, "output_rel_diff": difference, "faults": faults}, a)
        return case
    return None


def _benign(network, case, model, a, mutation, base=None):
    try:
        difference = output_difference(network.outputs[a], run(model, network.inputs))
    except Exception as e:  # a rewrite that met something it was not made for
        print(f"{case}: does not run, left out: {str(e)[:200]}")
        return False
    if difference > MOST_WHEN_HARMLESS:
        print(f"{case}: not harmless, {difference:.1e}; left out")
        return False
    truth = {"kind": "benign", "mutation": mutation, "output_rel_diff": difference}
    if base:
        truth["base"] = base
    network.write(case, model, truth, a)
    return True


def exporter_and_optimiser_cases(network):
    """The other exporter's file, what the optimiser makes of one, and both together."""
    rng = np.random.default_rng(seed_of(network.name, "optimiser"))
    bases, name = list(network.models), network.name
    if len(bases) == 2:
        _benign(network, f"{name}-benign-exporters", network.models[bases[0]], bases[1], "exporters")
        level, base = list(LEVELS)[int(rng.integers(3))], bases[int(rng.integers(2))]
        _benign(network, f"{name}-benign-crossopt_{level}-{base}", network.optimised(base, level)[0], network.other(base), f"crossopt_{level}", base)
    level, base = list(LEVELS)[int(rng.integers(3))], bases[int(rng.integers(len(bases)))]
    _benign(network, f"{name}-benign-ort_{level}-{base}", network.optimised(base, level)[0], base, f"ort_{level}", base)


def rewrite_case(network, kind):
    """The rewrite in one base of the network; whether there was a place for it."""
    rng = np.random.default_rng(seed_of(network.name, kind))
    for base in map(str, rng.permutation(list(network.models))):
        g = network.graph(base)
        if REWRITES[kind](g, rng):
            g.sort()
            return _benign(network, f"{network.name}-benign-{kind}-{base}", g.model, base, kind, base)
    return False


def _in_turn(networks, *words):
    """The networks in an order that depends on the words alone."""
    return [networks[i] for i in np.random.default_rng(seed_of(*words)).permutation(len(networks))]


def make(networks, population):
    """All cases: each kind of fault as often as the set says, in different networks and by different routes where there are enough; each
    rewrite likewise; cases with two faults in each network."""
    turn = 0
    for kind, wanted in [*((k, population.faults) for k in population.own_faults), *((k, 1) for k in population.shared_faults)]:
        made = 0
        for number in (0, 1):  # a second time in the same network only if the others do not suffice
            for network in _in_turn(networks, kind):
                if made == wanted:
                    break
                if fault_case(network, kind, number, _routes(network, turn), list(LEVELS)[turn % 3]):
                    made, turn = made + 1, turn + 1
    for kind, wanted in [*((k, population.rewrites) for k in population.own_rewrites), *((k, 1) for k in population.shared_rewrites)]:
        made = 0
        for network in _in_turn(networks, kind):
            made += made < wanted and rewrite_case(network, kind)
    kinds_of_fault = [*population.own_faults, *population.shared_faults]
    for network in networks:
        if population.exporters:
            exporter_and_optimiser_cases(network)
        rng, made = np.random.default_rng(seed_of(network.name, "two")), 0
        for _ in range(10 * population.two):
            kinds = [str(k) for k in rng.choice(kinds_of_fault, 2, replace=False)]
            route = "same" if len(network.models) == 1 or rng.integers(2) else "cross"
            made += made < population.two and bool(two_case(network, kinds, made, route))
