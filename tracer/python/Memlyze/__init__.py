"""Another name of the module `memlyze`."""
import sys

import memlyze

sys.modules[__name__] = memlyze
