"""`python -m bitnet_train.evaluate.harness ...`: the command `lm_eval`, with the model `bitnet_train` known.

lm_eval finds models by name, and learns the name when both packages are imported; its own command imports only itself.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec


def main() -> int:
    """Run lm_eval's command line; 2 with what to install where it is missing."""
    if find_spec("lm_eval") is None:
        print("lm_eval is not installed. Install it: `pip install 'bitnet-train[lm-eval]'`.", file=sys.stderr)
        return 2
    import_module("lm_eval.models")  # importing this package has seen to the rest
    import_module("lm_eval.__main__").cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
