"""Shape types are checked while testing: every annotation in seqkit is enforced by beartype.

`torch.compile(fullgraph=True)` cannot trace the hook, so tests marked `compile` run in a second call, with
SEQKIT_SHAPE_CHECKS=0.
"""

import os
import warnings
from pathlib import Path

import pytest

if os.environ.get("SEQKIT_SHAPE_CHECKS", "1") != "0":
    from jaxtyping import install_import_hook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        install_import_hook("seqkit", "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (SEQKIT_DATA, or ../shared/data beside the checkout); the test is skipped without it."""
    folder = Path(os.environ.get("SEQKIT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the shared data folder is not here (set SEQKIT_DATA)")
    return folder
