"""The typed schema that Hydra composes against, and the way back from Hydra to plain dataclasses."""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsnn import data
from dsnn.config import Config


def register() -> None:
    """Makes the schema and one ``data=<name>`` choice per data set known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name in data.names():
        store.store(group="data", name=name, node={"name": name}, package="data")


def typed(composed: DictConfig) -> Config:
    """Returns the checked configuration.

    Raises:
        ValueError: a value of the wrong type or out of range, in one sentence.
    """
    own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), own))
    except OmegaConfBaseException as error:
        raise ValueError(str(error).splitlines()[0]) from None
    assert isinstance(config, Config)
    return config
