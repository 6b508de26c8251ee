"""The configuration of a run: typed, with defaults here and nowhere else, checked before any work."""

from dsnn.bayes.bits_config import BitsConfig
from dsnn.config.config import Config, as_dict, from_dict
from dsnn.config.data import OWN, PYTHON, DataConfig
from dsnn.config.learning import ComputeConfig, FpttConfig, PopulationConfig, TbpttConfig, TrainConfig
from dsnn.config.model import CELLS, NAMED, OF_STACKS, STEPPED, STEPPED_NORMS, ModelConfig, named_network, reads_images
from dsnn.config.outputs import ExportConfig, RunConfig, TrackConfig
from dsnn.config.posterior import BayesConfig, EnergyConfig, GatesConfig
from dsnn.deploy.exit_options import HaltingConfig

__all__ = [
    "CELLS",
    "NAMED",
    "OF_STACKS",
    "OWN",
    "PYTHON",
    "STEPPED",
    "STEPPED_NORMS",
    "BayesConfig",
    "BitsConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "EnergyConfig",
    "ExportConfig",
    "FpttConfig",
    "GatesConfig",
    "HaltingConfig",
    "ModelConfig",
    "PopulationConfig",
    "RunConfig",
    "TbpttConfig",
    "TrackConfig",
    "TrainConfig",
    "as_dict",
    "from_dict",
    "named_network",
    "reads_images",
]
