"""The version of this appliance, as installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("turnpike")
except PackageNotFoundError:  # run from a tree that was never installed
    VERSION = "0+unknown"
