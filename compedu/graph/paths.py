"""The path of a layer's neurons to the layers that read them: is each treated on its own, and all of them alike?"""

from collections.abc import Collection

from torch import fx

from compedu.graph.coupling import BATCH_NORMS
from compedu.graph.nodes import called_name, module_of, only_consumer
from compedu.graph.operations import ASKING, ELEMENTWISE, MOVING, POOLING, REDUCING, key
from compedu.graph.trace import layer_calls


def path_obstacle(traced: fx.GraphModule, layer: str, readers: Collection[str]) -> str:
    """Return what between `layer` and `readers` does not treat all neurons alike and each on its own, or nothing."""
    modules = dict(traced.named_modules())
    calls = layer_calls(traced)
    if layer not in calls:
        return "only training calls it, so that the path to its readers cannot be seen"
    start = calls[layer][0]
    flow = {start}
    asked = sizes_asked(traced)
    for node in traced.graph.nodes:
        if not flow & set(node.all_input_nodes) or (node.op == "call_module" and node.target in readers):
            continue
        if node in asked:
            continue
        module = module_of(node, modules)
        name = key(called_name(node) if module is None else type(module).__name__)
        if not flow | asked >= set(node.all_input_nodes):
            return f"{node.name!r} joins its neurons with something else"
        if isinstance(module, BATCH_NORMS):
            if node.all_input_nodes != [start] or module.running_mean is None:
                return f"{node.name!r} normalizes after another operation, or with batch statistics"
            if only_consumer(start) is not node:
                return f"something else reads its neurons before {node.name!r}"
        elif name not in ELEMENTWISE | MOVING | REDUCING and not POOLING.match(name):
            return f"{node.name!r} is not known to treat each neuron on its own"
        flow.add(node)
    return ""


def sizes_asked(traced: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes that return shapes, data types and the like, and those that compute only with these."""
    asked: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op in ("call_function", "call_method"):
            name = node.args[1] if node.target is getattr else called_name(node)
            if key(name) in ASKING or (node.all_input_nodes and asked >= set(node.all_input_nodes)):
                asked.add(node)
    return asked
