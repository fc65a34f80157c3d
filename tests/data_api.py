"""Another name of `tools.data_api`, which programs outside of this repository import."""

from tools.data_api import DataApiServer, Fault, Settings, run_in_thread

__all__ = ["DataApiServer", "Fault", "Settings", "run_in_thread"]
