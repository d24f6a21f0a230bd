"""python -m discon_train COMMAND: see --help of each."""
import sys

from .cli import main

sys.exit(main())
