"""What holds for every test, alone or beside the tests of another worker of pytest-xdist.

The variables are read when NumPy, SciPy, torch and matplotlib are imported, which no test has done
yet; processes that tests start inherit them.
"""

import os
import signal
import sys
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A process in the background inherits that, and no test could press Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers would fight over the cores with more
os.environ.setdefault("MPLBACKEND", "Agg")  # no window
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # scikit-learn skips its array API check without

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def paper_scripts():
    """Let the scripts of the paper's experiments be imported, by the tests of one file alone.

    They find each other, and those of the benchmarks, by the folders that Python looks into.
    """
    path = list(sys.path)
    sys.path[:0] = [str(EXAMPLES / "paper"), str(EXAMPLES / "benchmarks")]
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(EXAMPLES) in str(getattr(module, "__file__", "")):
            del sys.modules[name]
