"""The sets of cases: which networks, which kinds, how many of each. The second was made after the program had been fitted to the first."""
import dataclasses

from . import benign, faults, networks_direct, networks_families, networks_fields, networks_models, networks_other, networks_ports, networks_served, networks_signal, networks_text


@dataclasses.dataclass
class Population:
    networks: dict      # builders by name
    own_faults: tuple
    own_rewrites: tuple
    faults: int         # cases of each own kind
    rewrites: int
    two: int            # cases with two faults in each network
    shared_faults: tuple = ()    # kinds of another set: one case each, in the networks of this one
    shared_rewrites: tuple = ()
    exporters: bool = True       # the harmless cases that every network gives by itself; another set has them already


def _builders(*modules):
    return {name: builder for m in modules for name, builder in m.BUILDERS.items()}


def _chosen(names):
    """Networks of the sets before this one."""
    every = _builders(networks_text, networks_signal, networks_other, networks_direct, networks_models, networks_fields, networks_ports, networks_families)
    return {name: every[name] for name in names.split()}


POPULATIONS = {
    "first": Population(_builders(networks_text, networks_signal, networks_other, networks_direct), faults.FIRST, benign.FIRST, faults=3, rewrites=2, two=1),
    "second": Population(_builders(networks_models, networks_fields), faults.SECOND, benign.SECOND, faults=4, rewrites=2, two=1, shared_faults=faults.FIRST, shared_rewrites=benign.FIRST),
    "third": Population(_builders(networks_ports), faults.THIRD, benign.THIRD, faults=3, rewrites=3, two=1, shared_faults=faults.FIRST + faults.SECOND, shared_rewrites=benign.FIRST + benign.SECOND),
    "fourth": Population(_builders(networks_families), faults.FOURTH, benign.FOURTH, faults=4, rewrites=3, two=1),
    "fifth": Population(_chosen("gpt2 qwen2 t5 whisper unet convnext tagger detector conformer swin mobile vit gemma3 olmo2 levit flow translator sparse wavlm lfm2 mixer stereo atoms dit "
                               "rwkv cached vocoder relative qwen3 modernbert tower masks matching transducer"), faults.FIFTH, benign.FIFTH, faults=3, rewrites=3, two=0, exporters=False),
    "sixth": Population({**_builders(networks_served), **_chosen("opt mpt bloom roformer phi3 mobilevit separator voices waves weather pose shuffled deformable flow tagger listener styles dpt denoiser dit xlnet glm "
                        "stablelm granite wav2vec2 graphnet bart cliptext gptj neox mamba qwen3 gemma3 hybrid retention sparse")}, faults.SIXTH, benign.SIXTH, faults=3, rewrites=3, two=1, exporters=False),
}
