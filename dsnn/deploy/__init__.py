"""The network that is put to use: decided, physically smaller, stopping early, timed."""

from dsnn.deploy.decided import Deployed, deploy

__all__ = ["Deployed", "deploy"]
