"""The only entry point: everything under `defs/`, one folder at a time, so that a folder that is wrong does not take the others down."""

import gc
import warnings
from pathlib import Path

import dagster as dg

from mlops_assets.components.loading import load_folders

# Component code references, backfill policies and partitioned checks are marked beta or preview; the lock pins what was tested.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """All sources, dbt models, solutions, resources and jobs."""
    # What is made here stays: looking for garbage among it takes a tenth of the time.
    gc.disable()
    try:
        return load_folders("mlops_assets.defs", Path(__file__).parent / "defs")
    finally:
        gc.enable()
