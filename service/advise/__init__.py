"""`python -m service advise BUNDLE`: measures what the settings of this machine should be, and says why.

`calls`, `crossover` and `load` measure; `decisions` are pure functions of what was measured; `report` shows both side
by side, and `env_file` writes the settings that gain. Nothing is recommended that does not gain beyond its own noise.
"""

from service.advise.compare import MARGIN, Gain, Verdict, gain_of
from service.advise.decisions import Decision

__all__ = ["MARGIN", "Decision", "Gain", "Verdict", "gain_of"]
